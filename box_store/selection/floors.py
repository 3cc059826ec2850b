"""Score floors of single classes: as people write them, and as annotations propose them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from box_store.calibration.judging import Judged
from box_store.coco.annotations import CocoData
from box_store.errors import StoreError, UsageError
from box_store.places import files

# fewer say nothing about a floor
MIN_OBJECTS = 10


def parse_floors(texts: Iterable[str]) -> dict[str, float]:
    """Floors by class name from `NAME=FLOOR`. Raises UsageError."""
    found = {}
    for text in texts:
        name, sign, value = text.rpartition("=")
        try:
            floor = float(value)
        except ValueError:
            floor = -1.0
        if not sign or not name.strip() or not 0 <= floor <= 1:
            raise UsageError(f"the floor of a class is NAME=FLOOR, as in cat=0.4; got {text!r}")
        found[name.strip()] = floor
    return found


@dataclass(frozen=True)
class Floor:
    """The floor proposed for one class, and what boxes from it on are worth.

    objects: annotated in the images looked at. precision, recall, f1: 0..1; None where the class
    has too few objects, or no floor reaches the precision that was asked for.
    """

    name: str
    objects: int
    floor: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


def propose(judged: Judged, coco: CocoData, precision: float | None = None) -> list[Floor]:
    """A floor for every class with annotated objects, those with most objects first.

    The floor with the best F1; with `precision`, the lowest from which on at least that share of
    the boxes is right. judged: a teacher's boxes, their scores as the floors are to be compared
    with.
    """
    counts = _objects(judged.image_ids, coco)
    rows = [
        _of_class(judged, item.id, item.name, counts[item.id], precision)
        for item in coco.categories.items
        if counts.get(item.id)
    ]
    return sorted(rows, key=lambda row: (-row.objects, row.name))


def _objects(image_ids: NDArray[np.int64], coco: CocoData) -> dict[int, int]:
    table = coco.table
    owners = np.repeat(table.image_ids, np.diff(table.offsets))
    mine = np.isin(owners, image_ids) & ~table.iscrowd
    keys, counts = np.unique(table.category_ids[mine], return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def _of_class(judged: Judged, key: int, name: str, objects: int, wanted: float | None) -> Floor:
    mine = judged.category_ids == key
    if objects < MIN_OBJECTS or not judged.hits[mine].any():
        return Floor(name, objects)
    order = np.argsort(-judged.scores[mine], kind="stable")
    scores, hits = judged.scores[mine][order], judged.hits[mine][order].cumsum()
    # a floor takes all boxes of one score or none
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    right = hits[last] / (last + 1)
    found = hits[last] / objects
    f1 = 2 * hits[last] / (last + 1 + objects)
    if wanted is None:
        best = int(f1.argmax())
    else:
        enough = np.flatnonzero(right >= wanted)
        if not len(enough):
            return Floor(name, objects)
        best = int(enough[-1])
    # a little below the score of the last box that is taken
    floor = float(np.floor(float(scores[last[best]]) * 1000) / 1000)
    return Floor(name, objects, floor, *(float(each[best]) for each in (right, found, f1)))


def write_floors(path: Path, floors: Mapping[str, Sequence[Floor]], source: str) -> None:
    """Settings of a student that takes these floors, by teacher. Raises StoreError."""
    lines = [f"# floors of scores as they are, proposed from {' '.join(source.split())}"]
    for teacher, rows in floors.items():
        found = [row for row in rows if row.floor is not None]
        if found:
            lines += ["", f"[teachers.each.{json.dumps(teacher)}.class_floors]"]
            lines += [f"{json.dumps(row.name)} = {row.floor:g}" for row in found]
    try:
        with files.replacing(path) as file:
            file.write("\n".join([*lines, ""]).encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
