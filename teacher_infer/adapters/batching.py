"""Batches that can't change a result: only images of one size go through a framework together."""

from collections.abc import Callable, Sequence

import numpy as np

from teacher_infer.adapters.protocol import Detections


def detect_by_size(
    images: Sequence[np.ndarray],
    detect: Callable[[list[np.ndarray]], list[Detections]],
) -> list[Detections]:
    """Call `detect` once for each image size (H, W) that occurs; results in the order of `images`.

    Frameworks pad a batch of mixed sizes to the largest, and padding shifts what convolutions and
    attention see near it: an image's boxes would depend on its neighbours in the batch.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    found: dict[int, Detections] = {}
    for indices in groups.values():
        results = detect([images[index] for index in indices])
        found.update(zip(indices, results, strict=True))
    return [found[index] for index in range(len(images))]
