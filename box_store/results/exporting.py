"""COCO results JSON: read detection by detection, and written from a store."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from box_store.boxes import Boxes, to_xywh
from box_store.coco.json_stream import iter_array, write_array
from box_store.errors import DataError, StoreError
from box_store.fuse import FusionConfig
from box_store.places import files
from box_store.places.locations import Location
from box_store.selection.file import TeacherBoxes
from box_store.selection.selecting import FUSED, Selection, SelectionSpec, select
from box_store.store.schema import MAX_BOXES_PER_IMAGE
from box_store.store.store import BoxStore

_KEYS = ("image_id", "category_id", "bbox", "score")
_ROUNDING = 1e-6


def iter_results(path: Path) -> Iterator[dict[str, Any]]:
    """The detections of a COCO results file, one by one, in bounded memory.

    Each has image_id and category_id (int), bbox (a list x, y, width, height of finite numbers,
    pixels) and score (float in 0..1). Raises DataError for a file that is no JSON array, is cut
    off, or has an entry without these.
    """
    for position, entry in enumerate(iter_array(path, "COCO results file")):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: entry {position} is no detection but {shortened(entry)}")
        lacking = [key for key in _KEYS if key not in entry]
        if lacking:
            raise DataError(f"{path}: entry {position} lacks {' and '.join(lacking)}")
        for key in ("image_id", "category_id"):
            value = entry[key]
            # some tools write ids as floats
            if not is_number(value) or value != int(value) or abs(value) >= 2**63:
                raise DataError(
                    f"{path}: entry {position} has the {key} {shortened(value)}, not a whole "
                    "number of 64 bits"
                )
            entry[key] = int(value)
        entry["score"] = _score(path, position, entry["score"])
        _check_box(path, position, entry["bbox"])
        yield entry


def _score(path: Path, position: int, score: Any) -> float:
    if not is_number(score) or not -_ROUNDING <= score <= 1 + _ROUNDING:
        raise DataError(f"{path}: entry {position} has the score {shortened(score)}, expected 0..1")
    return min(max(float(score), 0.0), 1.0)


def _check_box(path: Path, position: int, box: Any) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        raise DataError(
            f"{path}: entry {position} has the bbox {shortened(box)}, expected "
            "[x, y, width, height]"
        )


def export_results(
    store: BoxStore,
    teacher: str | None,
    out: Path,
    *,
    fusion: FusionConfig | None = None,
    score_floor: float = 0.0,
    top_k: int = MAX_BOXES_PER_IMAGE,
) -> int:
    """Write a teacher's boxes, or (teacher=None) the fusion of all, as a COCO results file.

    Boxes are x, y, width, height in pixels. Written entry by entry, the file appears as a whole or
    not at all; returns the number of detections. Raises UnknownTeacher, UsageError, StoreError, and
    DataError for a store of splits whose ids collide, of which none is chosen (`of_split`).
    """
    spec = SelectionSpec(
        teachers=None if teacher is None else (teacher,),
        score_floor=score_floor,
        top_k=top_k,
        combine="fused" if teacher is None else "parallel",
        fusion=fusion or FusionConfig(),
    )
    target = Path(out).absolute()
    try:
        files.make_folder(target.parent)
        # beside the result, not in the store: that may be read-only
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
            selection = Selection.open(select(store, spec, Path(folder)))
            rows = selection.of(FUSED if teacher is None else teacher)
            return write_results(target, _found(rows))
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error


def _found(rows: TeacherBoxes) -> Iterator[tuple[int, Boxes]]:
    for image_id in rows.image_ids.tolist():
        boxes = rows.get(image_id)
        if boxes is not None:
            yield image_id, boxes


def write_results(out: Location, found: Iterable[tuple[int, Boxes]]) -> int:
    """Write a COCO results file, whole or not at all, of images' ids and their boxes, whose
    `class_ids` are category ids; the number of detections.
    """
    files.make_folder(out.parent)
    with files.replacing(out) as file:
        n_boxes = write_array(
            file, (entry for image_id, boxes in found for entry in detections(image_id, boxes))
        )
        file.write(b"\n")
    return n_boxes


def detections(image_id: int, boxes: Boxes) -> Iterator[dict[str, Any]]:
    """The boxes of an image as entries of a results file: bbox is x, y, width, height in pixels.

    Rounded to 1/10000 px and a score of 1/100000, for files and for people: what computes takes the
    boxes themselves.
    """
    xywh = to_xywh(boxes.boxes_xyxy.astype(np.float64)).round(4)
    scores = boxes.scores.astype(np.float64).round(5)
    for category_id, box, score in zip(
        boxes.class_ids.tolist(), xywh.tolist(), scores.tolist(), strict=True
    ):
        yield {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def is_number(value: Any) -> bool:
    """A finite JSON number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def shortened(value: Any) -> str:
    """Its representation, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
