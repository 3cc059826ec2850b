"""The boxes of one teacher after the rule of a selection: floor, suppression, the best of each
image.

A unit at a time, so that only what is kept of the boxes is in memory at once.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

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
    class_floors: tuple[tuple[str, float], ...] = ()
    """floors of classes by name, in place of `score_floor`"""

    def identity(self) -> dict[str, Any]:
        """What a selection is named by, beside the calibration itself."""
        values = asdict(self)
        values.pop("calibrated")
        if not self.class_floors:
            # as selections were named before there were any
            values.pop("class_floors")
        return values


def filtered(
    store: BoxStore, name: str, rule: Rule, calibration: Calibration | None
) -> TeacherBoxes:
    """What a teacher saw, as the rule keeps it.

    Raises FormatError for a damaged store, DataError for the floor of a class that it has not.
    """
    where = f"teacher {name} of {store.path}"
    floors = {store.categories.by_name(key).id: floor for key, floor in rule.class_floors}
    units = [
        _of_unit(unit, rule, floors, calibration, where=f"unit {unit.number} of {where}")
        for unit in iter_units(store, name)
    ]
    return joined(units)


def _of_unit(
    unit: Unit,
    rule: Rule,
    floors: Mapping[int, float],
    calibration: Calibration | None,
    where: str,
) -> TeacherBoxes:
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
    boxes, ids = xyxy_of(unit.boxes), unit.boxes["category_id"].to_numpy()
    kept = np.flatnonzero(above_floors(scores, ids, rule.score_floor, floors))
    kept = kept[np.lexsort((unit.boxes["rank"].to_numpy()[kept], rows[kept]))]
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


def above_floors(
    scores: NDArray[np.float32],
    ids: NDArray[np.int32],
    floor: float,
    floors: Mapping[int, float],
) -> NDArray[np.bool_]:
    """Which boxes reach the floor of their class, by its id, or that of all others: bool [N]."""
    wanted = np.full(len(scores), floor, np.float32)
    for key, own in floors.items():
        wanted[ids == key] = own
    return scores >= wanted
