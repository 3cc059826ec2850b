"""What a detector sees of an image through several looks at it, as one set of boxes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from box_store.boxes import Boxes
from box_store.fuse import FusionConfig, fuse
from box_store.tiling.tiles import Tiling, Window


class Look(Protocol):
    """A part of an image, or a change of it, that a detector is shown."""

    def show(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3], the image -> uint8 [h, w, 3], what is shown."""
        ...

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes in pixels of what was shown -> boxes in the image."""
        ...


Predict = Callable[[list[np.ndarray]], list[Boxes]]


def seen_through(
    predict: Predict, images: Sequence[np.ndarray], looks: Sequence[Sequence[Look]], iou: float
) -> list[Boxes | None]:
    """What is found in each image through its looks, as one set; None for an image without looks.

    Where looks overlap objects are found twice: of boxes of a class that overlap by more than `iou`
    the best is kept. `predict` is shown at most as many pictures at a time as there are images.
    """
    rounds = max(map(len, looks), default=0)
    asked = [
        (index, each[number])
        for number in range(rounds)
        for index, each in enumerate(looks)
        if number < len(each)
    ]
    parts: list[list[Boxes]] = [[] for _ in images]
    for start in range(0, len(asked), len(images)):
        now = asked[start : start + len(images)]
        found = predict([look.show(images[index]) for index, look in now])
        for (index, look), boxes in zip(now, found, strict=True):
            parts[index].append(look.to_image(boxes))
    return [_joined(each, iou) for each in parts]


def predict_tiled(
    predict: Predict, images: Sequence[np.ndarray], tiling: Tiling, iou: float = 0.6
) -> list[Boxes]:
    """Boxes of images, best first, seen whole and through their tiles: of boxes of a class that
    overlap by more than `iou` the best is kept.
    """
    looks = [tiles_beside_whole(tiling, image) for image in images]
    tiles = seen_through(predict, images, looks, iou)
    return [
        merged({"whole": whole} | ({} if each is None else {"tiles": each}), iou)
        for whole, each in zip(predict(list(images)), tiles, strict=True)
    ]


def tiles_beside_whole(tiling: Tiling, image: np.ndarray) -> list[Window]:
    """The tiles of an image [H, W, 3] that is shown as a whole too; none if one tile is all."""
    windows = tiling.windows(image.shape[1], image.shape[0])
    return [] if windows[0].is_whole else windows


def merged(views: Mapping[str, Boxes], iou: float) -> Boxes:
    """Several views of one image as one set; a single view is left as it is."""
    if len(views) == 1:
        return next(iter(views.values()))
    return fuse(views, FusionConfig("nms", iou, quota=False)).sorted()


def _joined(parts: Sequence[Boxes], iou: float) -> Boxes | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return Boxes.joined(parts).sorted().nms(iou)
