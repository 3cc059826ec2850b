"""Reading a store with pyarrow alone: whole teachers, unit by unit, or one image.

Only units that have both files are seen, and every file is checked against the teacher's record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from box_store.boxes import Boxes
from box_store.coco.annotations import ImageInfo
from box_store.store import schema
from box_store.store.parts import part_path, read_part
from box_store.store.store import BoxStore


@dataclass(frozen=True, slots=True)
class Unit:
    """One committed unit: its number and its two tables, as `schema` describes them."""

    number: int
    boxes: pa.Table
    images: pa.Table


def iter_units(store: BoxStore, teacher: str) -> Iterator[Unit]:
    """The committed units of a teacher, one after the other. Raises UnknownTeacher, FormatError."""
    record = store.record(teacher)
    for number in sorted(store.units_done(teacher)):
        yield Unit(
            number,
            read_part(part_path(store.path, "boxes", teacher, number), "boxes", record),
            read_part(part_path(store.path, "images", teacher, number), "images", record),
        )


def read_boxes(store: BoxStore, teacher: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All boxes of a teacher, in the order of its units. Raises UnknownTeacher, FormatError."""
    return _read_all(store, teacher, "boxes", columns)


def read_images(store: BoxStore, teacher: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All images a teacher was shown. Raises UnknownTeacher, FormatError."""
    return _read_all(store, teacher, "images", columns)


def known_images(store: BoxStore) -> tuple[ImageInfo, ...]:
    """Every image that some teacher was shown and could read, by ascending id."""
    found: dict[int, ImageInfo] = {}
    for name in store.teachers:
        for image in images_of(store, name):
            found.setdefault(image.id, image)
    return tuple(found[key] for key in sorted(found))


def images_of(store: BoxStore, teacher: str) -> Iterator[ImageInfo]:
    """Every image that a teacher found boxes in, or none, in the order of its units: not those that
    it could not read, or that are not the file that their annotations speak of.

    Raises UnknownTeacher, FormatError.
    """
    columns = ("image_id", "file_name", "width", "height")
    table = read_images(store, teacher, (*columns, "status"))
    seen = table.filter(pc.field("status") == "ok").to_pydict()
    for row in zip(*(seen[column] for column in columns), strict=True):
        yield ImageInfo(*row)


def boxes_of(store: BoxStore, teacher: str, image_id: int) -> Boxes | None:
    """One image's boxes, best first; None where the teacher has not, or not successfully, seen it.

    Opens files for every call: for looking at images. A trainer reads a `Selection`.
    """
    record = store.record(teacher)
    for number in sorted(store.units_done(teacher)):
        images = read_part(part_path(store.path, "images", teacher, number), "images", record)
        rows = images.filter(pc.field("image_id") == image_id).to_pylist()
        if not rows:
            continue
        if rows[0]["status"] != "ok":
            return None
        table = read_part(part_path(store.path, "boxes", teacher, number), "boxes", record)
        found = table.filter(pc.field("image_id") == image_id)
        return Boxes(
            xyxy_of(found),
            found["score"].to_numpy(),
            found["category_id"].to_numpy(),
            rows[0]["width"],
            rows[0]["height"],
        )
    return None


def xyxy_of(boxes: pa.Table) -> np.ndarray:
    """The corners of a boxes table, float32 [N, 4], pixels."""
    corners = [boxes[name].to_numpy() for name in ("x1", "y1", "x2", "y2")]
    return np.stack(corners, axis=1).astype(np.float32, copy=False)


def _read_all(store: BoxStore, teacher: str, kind: str, columns: Sequence[str] | None) -> pa.Table:
    record = store.record(teacher)
    tables = [
        read_part(part_path(store.path, kind, teacher, number), kind, record, columns)
        for number in sorted(store.units_done(teacher))
    ]
    if tables:
        return pa.concat_tables(tables)
    wanted = schema.SCHEMAS[kind]
    names = list(columns or wanted.names)
    return pa.schema([wanted.field(name) for name in names]).empty_table()
