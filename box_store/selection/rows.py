"""The boxes of one teacher after the rule of a selection: floor, suppression, the best of each
image.

A unit at a time, so that only what is kept of the boxes is in memory at once.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from box_store.boxes import nms_keep
from box_store.calibration.score_map import Calibration, tempered
from box_store.errors import FormatError
from box_store.selection.file import TeacherBoxes
from box_store.store.reader import Unit, iter_units, xyxy_of
from box_store.store.store import BoxStore


@dataclass(frozen=True, slots=True)
class Rule:
    """What a selection asks of one teacher; the fields are those of `TeacherFilter`."""

    score_floor: float
    top_k: int
    nms_iou: float | None
    temperature: float
    calibrated: bool

    def identity(self) -> dict[str, Any]:
        """What a selection is named by, beside the calibration itself."""
        values = asdict(self)
        values.pop("calibrated")
        return values


def filtered(
    store: BoxStore, name: str, rule: Rule, calibration: Calibration | None
) -> TeacherBoxes:
    """What a teacher saw, as the rule keeps it. Raises FormatError for a damaged store."""
    where = f"teacher {name} of {store.path}"
    units = [
        _of_unit(unit, rule, calibration, where=f"unit {unit.number} of {where}")
        for unit in iter_units(store, name)
    ]
    return _joined(units)


def _of_unit(unit: Unit, rule: Rule, calibration: Calibration | None, where: str) -> TeacherBoxes:
    seen = unit.images.filter(pc.field("status") == "ok")
    order = np.argsort(seen["image_id"].to_numpy(), kind="stable")
    image_ids = seen["image_id"].to_numpy()[order]
    box_image = unit.boxes["image_id"].to_numpy()
    if not np.isin(box_image, image_ids).all():
        raise FormatError(f"{where} has boxes of images that it never saw: run `teach-detr check`")
    rows = np.searchsorted(image_ids, box_image)
    scores = unit.boxes["score"].to_numpy()
    if calibration is not None:
        scores = calibration.map.apply(scores)
    kept = np.flatnonzero(scores >= np.float32(rule.score_floor))
    kept = kept[np.lexsort((unit.boxes["rank"].to_numpy()[kept], rows[kept]))]
    boxes, ids = xyxy_of(unit.boxes), unit.boxes["category_id"].to_numpy()
    if rule.nms_iou is not None:
        kept = kept[_suppressed(rows[kept], boxes[kept], ids[kept], len(image_ids), rule.nms_iou)]
    starts = np.searchsorted(rows[kept], np.arange(len(image_ids)))
    kept = kept[np.arange(len(kept)) - starts[rows[kept]] < rule.top_k]
    scores = scores[kept]
    return TeacherBoxes(
        image_ids,
        seen["width"].to_numpy()[order],
        seen["height"].to_numpy()[order],
        _offsets(np.bincount(rows[kept], minlength=len(image_ids))),
        boxes[kept],
        scores if rule.temperature == 1 else tempered(scores, rule.temperature),
        ids[kept],
    )


def _joined(parts: Sequence[TeacherBoxes]) -> TeacherBoxes:
    """One set of the images of several, by ascending id."""
    image_ids = np.concatenate([np.zeros(0, np.int64), *(part.image_ids for part in parts)])
    counts = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in parts)])
    widths = np.concatenate([np.zeros(0, np.int32), *(part.widths for part in parts)])
    heights = np.concatenate([np.zeros(0, np.int32), *(part.heights for part in parts)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes_xyxy for part in parts)])
    scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)])
    ids = np.concatenate([np.zeros(0, np.int32), *(part.category_ids for part in parts)])
    offsets = _offsets(counts)
    if (np.diff(image_ids) > 0).all():
        return TeacherBoxes(image_ids, widths, heights, offsets, boxes, scores, ids)
    # units need not follow one another by id: move each image's rows to their place
    order = np.argsort(image_ids, kind="stable")
    moved = _offsets(counts[order])
    rows = np.arange(len(scores)) + np.repeat(offsets[:-1][order] - moved[:-1], counts[order])
    return TeacherBoxes(
        image_ids[order], widths[order], heights[order], moved, boxes[rows], scores[rows], ids[rows]
    )


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _suppressed(
    rows: NDArray[np.int64],
    boxes: NDArray[np.float32],
    ids: NDArray[np.int32],
    n_images: int,
    iou: float,
) -> NDArray[np.int64]:
    bounds = np.searchsorted(rows, np.arange(n_images + 1))
    kept = [
        start + nms_keep(boxes[start:stop], ids[start:stop], iou)
        for start, stop in itertools.pairwise(bounds.tolist())
        if stop > start
    ]
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)
