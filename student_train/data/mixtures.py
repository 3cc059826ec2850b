"""Mixtures of two images, as DEIM trains with. A teacher knows one if it has seen both."""

from collections.abc import Iterator, Sequence
from itertools import starmap

import torch

from student_train.config import AugmentConfig
from student_train.data.batch import Batch, BoxSets
from student_train.data.coco import sample_generator
from student_train.data.mosaic import is_mixed_epoch
from student_train.models.targets import Targets


def mixed(
    batches: Iterator[Batch], config: AugmentConfig, seed: int, epoch: int, first: int
) -> Iterator[Batch]:
    """Batches of an epoch from number `first` on, on the CPU, some of them mixtures."""
    wanted = config.mixup > 0 and is_mixed_epoch(config, epoch)
    for number, batch in enumerate(batches, first):
        # ids of images are not that negative
        draw = sample_generator(seed, epoch, -(2**40) - number)
        if wanted and torch.rand((), generator=draw) < config.mixup:
            batch = mix(batch, 0.45 + 0.1 * float(torch.rand((), generator=draw)))
        yield batch


def mix(batch: Batch, share: float) -> Batch:
    """Every image of a batch of equal sizes blended with the one before it, which has 1 - `share`
    of it; it has the boxes of both, and is labelled if both are. Images of other sizes are left as
    they are.
    """
    if len(batch) < 2 or len({tuple(size) for size in batch.sizes.tolist()}) > 1:
        return batch
    images = batch.images.float()
    blended = images.mul(share).add_(images.roll(1, 0), alpha=1 - share)
    labelled = [each if each.known else None for each in batch.truth]
    unknown = Targets.unknown(batch.boxes.rows)
    truth = [unknown if each is None else each for each in _with_previous(labelled)]
    teachers = {name: _with_previous(seen) for name, seen in batch.teachers.items()}
    return batch.remade(blended.round_().to(torch.uint8), BoxSets.pack(truth, teachers))


def _with_previous(boxes: Sequence[Targets | None]) -> list[Targets | None]:
    return list(starmap(_both, zip(boxes, [boxes[-1], *boxes[:-1]], strict=True)))


def _both(a: Targets | None, b: Targets | None) -> Targets | None:
    if a is None or b is None:
        return None
    return Targets(
        torch.cat([a.labels, b.labels]),
        torch.cat([a.boxes, b.boxes]),
        torch.cat([a.scores, b.scores]),
        had_boxes=a.had_boxes or b.had_boxes,
    )
