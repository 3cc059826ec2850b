"""Merging the box sets of several teachers into one, by the rule of `box_store.fuse`."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.errors import UsageError
from box_store.fuse import FusionConfig, fuse, survivors
from box_store.selection.file import TeacherBoxes, joined, offsets_of

# images that are fused in one go
_BLOCK = 1024


def fused(by_teacher: Mapping[str, TeacherBoxes], config: FusionConfig) -> TeacherBoxes:
    """One box set of all images that some teacher saw. Raises UsageError where sizes disagree."""
    image_ids = np.unique(np.concatenate([rows.image_ids for rows in by_teacher.values()]))
    blocks = [image_ids[at : at + _BLOCK] for at in range(0, len(image_ids), _BLOCK)]
    merge = _suppressed if config.method == "nms" else _one_by_one
    return joined([merge(by_teacher, block, config) for block in blocks])


def _suppressed(
    by_teacher: Mapping[str, TeacherBoxes], block: NDArray[np.int64], config: FusionConfig
) -> TeacherBoxes:
    """The images of `block`, int64 ascending, by `nms`, in arrays."""
    sizes = np.zeros((len(block), 2), np.int32)
    seen_by = np.zeros(len(block), np.int64)
    pool: list[tuple[NDArray[np.generic], ...]] = []
    for name, rows in by_teacher.items():
        first, end = rows.image_ids.searchsorted([block[0], block[-1] + 1])
        at = block.searchsorted(rows.image_ids[first:end])
        own = np.stack([rows.widths[first:end], rows.heights[first:end]], axis=1)
        _agree(sizes[at], own, seen_by[at])
        sizes[at] = own
        seen_by[at] += 1
        span = slice(int(rows.offsets[first]), int(rows.offsets[end]))
        images = np.repeat(at, np.diff(rows.offsets[first : end + 1]))
        boxes = np.clip(rows.boxes_xyxy[span], 0, np.tile(sizes[images], 2).astype(np.float32))
        there = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        scores, ids = rows.scores[span][there], rows.category_ids[span][there]
        weights = np.full(len(scores), config.weight(name))
        pool.append((images[there], boxes[there], scores, ids, weights))
    images, boxes, scores, ids, weights = (
        np.concatenate(parts) for parts in zip(*pool, strict=True)
    )
    kept = survivors(boxes, scores, ids, weights, config.iou, images)
    if config.quota:
        starts = images[kept].searchsorted(np.arange(len(block)))
        ranks = np.arange(len(kept)) - starts[images[kept]]
        quota = np.bincount(images, minlength=len(block)) // np.maximum(seen_by, 1)
        kept = kept[ranks < quota[images[kept]]]
    offsets = offsets_of(np.bincount(images[kept], minlength=len(block)))
    return TeacherBoxes(
        block, sizes[:, 0], sizes[:, 1], offsets, boxes[kept], scores[kept], ids[kept]
    )


def _agree(known: NDArray[np.int32], own: NDArray[np.int32], seen_by: NDArray[np.int64]) -> None:
    differ = np.flatnonzero((known != own).any(axis=1) & (seen_by > 0))
    if len(differ):
        both = sorted(tuple(each[differ[0]].tolist()) for each in (known, own))
        raise UsageError(f"the teachers disagree about the image's size: {both}")


def _one_by_one(
    by_teacher: Mapping[str, TeacherBoxes], block: NDArray[np.int64], config: FusionConfig
) -> TeacherBoxes:
    merged = list(_fuse_each(by_teacher, block, config))
    return TeacherBoxes(
        block,
        np.array([boxes.width for boxes in merged], np.int32),
        np.array([boxes.height for boxes in merged], np.int32),
        offsets_of(np.array([len(boxes) for boxes in merged])),
        np.concatenate([np.zeros((0, 4), np.float32), *(boxes.boxes_xyxy for boxes in merged)]),
        np.concatenate([np.zeros(0, np.float32), *(boxes.scores for boxes in merged)]),
        np.concatenate([np.zeros(0, np.int32), *(boxes.class_ids for boxes in merged)]),
    )


def _fuse_each(
    by_teacher: Mapping[str, TeacherBoxes], block: NDArray[np.int64], config: FusionConfig
) -> Iterator[Boxes]:
    for image_id in block.tolist():
        seen = {name: rows.get(image_id) for name, rows in by_teacher.items()}
        yield fuse({name: boxes for name, boxes in seen.items() if boxes is not None}, config)
