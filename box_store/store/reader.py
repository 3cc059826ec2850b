"""Reading a store with pyarrow alone: whole teachers, unit by unit, or one image.

Only units that have both files are seen, and every file is checked against the teacher's record.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from box_store.boxes import Boxes
from box_store.coco.annotations import ImageInfo
from box_store.errors import DataError
from box_store.store import schema, splits
from box_store.store.parts import part_path, read_part
from box_store.store.records import TeacherRecord
from box_store.store.store import BoxStore


@dataclass(frozen=True, slots=True)
class Unit:
    """One committed unit: its number and its two tables, as `schema` describes them. Boxes lack the
    column `split` where the ids of the unit's images tell them apart.
    """

    number: int
    boxes: pa.Table
    images: pa.Table


def iter_units(store: BoxStore, teacher: str) -> Iterator[Unit]:
    """The committed units of a teacher, one after the other; of a store that shows some splits only
    (`BoxStore.showing`), what is of these. Raises UnknownTeacher, FormatError.
    """
    record = store.record(teacher)
    for number in sorted(store.units_done(teacher)):
        images = _unit_images(store, record, number)
        yield Unit(number, _unit_boxes(store, record, number, images), _only_shown(store, images))


def _unit_images(store: BoxStore, record: TeacherRecord, number: int) -> pa.Table:
    return read_part(part_path(store.path, "images", record.name, number), "images", record)


def _unit_boxes(store: BoxStore, record: TeacherRecord, number: int, images: pa.Table) -> pa.Table:
    """images: all of the unit, those that are not shown too."""
    path = part_path(store.path, "boxes", record.name, number)
    ids = images["image_id"].to_numpy()
    if len(np.unique(ids)) < len(ids):
        return _only_shown(store, read_part(path, "boxes", record))
    # a text a box costs a third of the time of reading
    columns = [name for name in schema.BOXES.names if name != "split"]
    boxes = read_part(path, "boxes", record, columns)
    if store.shown is None:
        return boxes
    shown = _only_shown(store, images)["image_id"].to_numpy()
    return boxes.filter(pa.array(np.isin(boxes["image_id"].to_numpy(), shown)))


def _only_shown(store: BoxStore, rows: pa.Table) -> pa.Table:
    """Those rows, of a table with the column `split`, whose split the store shows."""
    if store.shown is None:
        return rows
    return rows.filter(pc.field("split").cast(pa.string()).isin(sorted(store.shown)))


def read_boxes(store: BoxStore, teacher: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All boxes of a teacher, in the order of its units. Raises UnknownTeacher, FormatError."""
    return _read_all(store, teacher, "boxes", columns)


def read_images(store: BoxStore, teacher: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All images a teacher was shown. Raises UnknownTeacher, FormatError."""
    return _read_all(store, teacher, "images", columns)


def known_images(store: BoxStore) -> tuple[ImageInfo, ...]:
    """Every image that some teacher was shown and could read, by ascending id.

    Raises DataError where an id is that of several images: `BoxStore.showing` one split.
    """
    seen = seen_images(store)
    if store.shown is None:
        splits.refuse(splits.collision(seen), store.path)
    found: dict[int, ImageInfo] = {}
    for image in seen:
        found.setdefault(image.id, image)
    return tuple(found[key] for key in sorted(found))


def seen_images(store: BoxStore, teachers: Iterable[str] | None = None) -> list[ImageInfo]:
    """Every image that some of the teachers (by default all) could read, each once for all that is
    known of it, by split and id. Raises UnknownTeacher, FormatError.
    """
    names = store.teachers if teachers is None else teachers
    found = {image for name in names for image in images_of(store, name)}
    return sorted(found, key=lambda image: (*image.key, image))


def images_of(store: BoxStore, teacher: str) -> Iterator[ImageInfo]:
    """Every image that a teacher found boxes in, or none, in the order of its units: not those that
    it could not read, or that are not the file that their annotations speak of.

    Raises UnknownTeacher, FormatError.
    """
    columns = ("image_id", "file_name", "width", "height", "split")
    table = read_images(store, teacher, (*columns, "status"))
    seen = table.filter(pc.field("status") == "ok").to_pydict()
    for row in zip(*(seen[column] for column in columns), strict=True):
        yield ImageInfo(*row)


def boxes_of(
    store: BoxStore, teacher: str, image_id: int, split: str | None = None
) -> Boxes | None:
    """One image's boxes, best first; None where the teacher has not, or not successfully, seen it.

    Opens files for every call: for looking at images. A trainer reads a `Selection`. Raises
    DataError where several splits have an image of that id and `split` does not say which.
    """
    if split is not None:
        store = store.showing([split])
    record = store.record(teacher)
    found: list[tuple[int, pa.Table, dict[str, Any]]] = []
    for number in sorted(store.units_done(teacher)):
        images = _unit_images(store, record, number)
        rows = _only_shown(store, images).filter(pc.field("image_id") == image_id).to_pylist()
        found += [(number, images, row) for row in rows]
    if len(found) > 1:
        named = " and ".join(f"{row['file_name']} in {row['split']}" for _, _, row in found[:2])
        raise DataError(f"image {image_id} is {named}: say which, with split=NAME")
    if not found or found[0][2]["status"] != "ok":
        return None
    number, images, row = found[0]
    table = _unit_boxes(store, record, number, images).filter(pc.field("image_id") == image_id)
    return Boxes(
        xyxy_of(table),
        table["score"].to_numpy(),
        table["category_id"].to_numpy(),
        row["width"],
        row["height"],
    )


def xyxy_of(boxes: pa.Table) -> np.ndarray:
    """The corners of a boxes table, float32 [N, 4], pixels."""
    corners = [boxes[name].to_numpy() for name in ("x1", "y1", "x2", "y2")]
    return np.stack(corners, axis=1).astype(np.float32, copy=False)


def _read_all(store: BoxStore, teacher: str, kind: str, columns: Sequence[str] | None) -> pa.Table:
    record = store.record(teacher)
    wanted = schema.SCHEMAS[kind]
    names = list(columns or wanted.names)
    read = names if store.shown is None or "split" in names else [*names, "split"]
    tables = [
        read_part(part_path(store.path, kind, teacher, number), kind, record, read)
        for number in sorted(store.units_done(teacher))
    ]
    if tables:
        return pa.concat_tables(_only_shown(store, table).select(names) for table in tables)
    return pa.schema([wanted.field(name) for name in names]).empty_table()
