"""The boxes of one teacher after the rule of a selection: floor, suppression, the best of each
image.

A unit at a time, so that only what is kept of the boxes is in memory at once.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from box_store.boxes import nms_keep
from box_store.calibration.score_map import Calibration, tempered
from box_store.errors import FormatError
from box_store.selection.file import TeacherBoxes, joined, offsets_of
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
    return joined(units)


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
        kept = kept[nms_keep(boxes[kept], ids[kept], rule.nms_iou, rows[kept])]
    starts = np.searchsorted(rows[kept], np.arange(len(image_ids)))
    kept = kept[np.arange(len(kept)) - starts[rows[kept]] < rule.top_k]
    scores = scores[kept]
    return TeacherBoxes(
        image_ids,
        seen["width"].to_numpy()[order],
        seen["height"].to_numpy()[order],
        offsets_of(np.bincount(rows[kept], minlength=len(image_ids))),
        boxes[kept],
        scores if rule.temperature == 1 else tempered(scores, rule.temperature),
        ids[kept],
    )
