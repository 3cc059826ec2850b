"""Hugging Face parquet: a row an image, its encoded bytes in a column, its boxes in another.

Boxes are COCO's (x, y, width, height) or corners, as a struct of lists or a list of structs; class
names stand in the metadata that `datasets` writes. Images are unpacked once into the cache.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import ALL, Box, Classes, Labelled, assemble, role
from box_store.forms.headers import image_size
from box_store.forms.protocol import Form, Options, Reading, one_of
from box_store.forms.tree import Tree, stem, suffix
from box_store.pixels import ImageError
from box_store.places.locations import cache_folder

_OBJECTS = ("objects", "annotations", "boxes", "faces", "litter", "labels")
_BOX = ("bbox", "bboxes", "boxes", "box")
_CLASS = ("category", "categories", "category_id", "label", "labels", "class", "class_label")
_ROWS = 64
# beyond it no number is part of a box, nor is what is no number at all
_LARGEST = 2.0**63


def _recognise(tree: Tree) -> str | None:
    files = _files(tree)
    return ", ".join(files[:3]) + (", ..." if len(files) > 3 else "") if files else None


def _files(tree: Tree) -> list[str]:
    if tree.file is not None:
        files = [tree.file] if suffix(tree.file) == "parquet" else []
    else:
        files = list(tree.files("parquet"))
    if files and _image_column(_schema(tree, files[0])) is None:
        return []
    return files


def _schema(tree: Tree, path: str) -> pa.Schema:
    try:
        return pq.read_schema(tree.root / path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{tree.root / path} is no readable parquet file: {error}") from error


def _image_column(schema: pa.Schema) -> str | None:
    """The column of encoded images: bytes, or a struct that has them."""
    for field in schema:
        kind = field.type
        inner = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if inner or (plain and field.name in ("image", "img", "jpg", "png")):
            return field.name
    return None


@dataclass
class Row:
    """One image and its boxes, as a row of a file has them."""

    file: str
    number: int
    size: tuple[int, int]
    boxes: list[tuple[str, list[float], bool]]

    def labelled(self, classes: Classes, corners: bool) -> Labelled:
        """Its boxes as COCO has them, from corners or not."""
        boxes: list[Box] = []
        for number, (label, values, crowd) in enumerate(self.boxes):
            x, y, a, b = values
            position = classes.position(label)
            assert position is not None
            box = (x, y, a - x, b - y) if corners else (x, y, a, b)
            boxes.append((position, box, number, crowd))
        return Labelled(*self.size, boxes)


def are_corners(options: Options, images: Iterable[Row]) -> bool:
    """Whether boxes are two corners, as the user says, or because more of them then fit into their
    images than as corner and extent. Raises UsageError for another word.
    """
    kind = one_of(options, "boxes", ("xywh", "xyxy"), "xywh or xyxy", None)
    return kind == "xyxy" or (kind is None and _fit_as_corners(images))


def told_kind(options: Options, corners: bool) -> list[str]:
    """What people should know of that, where they have not said it."""
    form = "corners" if corners else "x, y, width, height"
    words = f"boxes are taken as {form} (option boxes: xywh or xyxy)"
    return [] if options.get("boxes") else [words]


def _read(tree: Tree, options: Options) -> Reading:
    are_corners(options, ())
    files = _files(tree)
    schema = _schema(tree, files[0])
    column, objects = _image_column(schema), _objects_column(schema)
    if column is None:
        raise DataError(f"{files[0]}: no column holds images")
    if objects is None:
        raise DataError(f"{files[0]}: no column holds boxes; there are {', '.join(schema.names)}")
    names = _class_names(schema, objects)
    room = cache_folder() / "unpacked" / _fingerprint(tree, files)
    problems: dict[str, Problems] = {}
    members: dict[str, list[str]] = {}
    images: dict[str, Row] = {}
    for file in files:
        split = re.split(r"[-_.]", stem(file))[0]
        split = split if role(split) else next((p for p in file.split("/") if role(p)), ALL)
        mine = problems.setdefault(split, Problems())
        for number, row in enumerate(_rows(tree, file, [column, objects])):
            where = f"{file} row {number}"
            data, name = _encoded(row[column])
            if data is None:
                mine.note("image missing", f"{where}: no bytes")
                continue
            try:
                place, size = _unpack(room, split, f"{stem(file)}-{number:06d}", data)
            except ImageError as error:
                mine.note("image not readable", f"{where} ({name}): {error}")
                continue
            images[place] = Row(file, number, size, boxes_of(row[objects], names, where, mine))
            members.setdefault(split, []).append(place)
    if not members:
        raise DataError(f"{tree.place}: no row holds an image that can be read")
    corners = are_corners(options, images.values())
    classes = Classes() if names is None else Classes(list(names), closed=True)
    reading = assemble_rows(Tree(room), members, images, classes, corners, problems)
    reading.notes += [f"images are unpacked into {room}", *told_kind(options, corners)]
    return reading


def assemble_rows(
    tree: Tree,
    members: dict[str, list[str]],
    rows: Mapping[str, Row],
    classes: Classes,
    corners: bool,
    problems: dict[str, Problems],
) -> Reading:
    """All splits, from rows by the path of their image."""
    return assemble(
        tree,
        members,
        lambda path, _: rows[path].labelled(classes, corners),
        classes,
        lambda path, number: f"{rows[path].file} row {rows[path].number} box {number}",
        problems,
    )


def _objects_column(schema: pa.Schema) -> str | None:
    nested = [
        f.name for f in schema
        if (pa.types.is_struct(f.type) or pa.types.is_list(f.type)) and _box_key(f.type)
    ]  # fmt: skip
    return next((name for name in _OBJECTS if name in nested), nested[0] if nested else None)


def _box_key(kind: pa.DataType) -> str | None:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if not pa.types.is_struct(kind):
        return None
    keys = [kind.field(at).name for at in range(kind.num_fields)]
    return next((key for key in _BOX if key in keys), None)


def _class_names(schema: pa.Schema, objects: str) -> list[str] | None:
    """Class names from what `datasets` wrote into the file's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(raw or b"{}")["info"]["features"][objects]
    except (ValueError, KeyError, TypeError):
        return None

    def look(value: Any) -> list[str] | None:
        if isinstance(value, dict):
            if value.get("_type") == "ClassLabel" and isinstance(value.get("names"), list):
                return [str(name) for name in value["names"]]
            value = list(value.values())
        if isinstance(value, list):
            return next((found for each in value if (found := look(each))), None)
        return None

    return look(features)


def _rows(tree: Tree, path: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(tree.root / path) as file:
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{tree.root / path} is no readable parquet file: {error}") from error


def _encoded(value: Any) -> tuple[bytes | None, str]:
    if isinstance(value, dict):
        return value.get("bytes"), str(value.get("path") or "")
    return value, ""


def _unpack(room: Path, split: str, name: str, data: bytes) -> tuple[str, tuple[int, int]]:
    """Write an image into the cache, unless it is there; its path from `room`, and its size."""
    from PIL import UnidentifiedImageError
    from PIL.Image import open as open_image

    from box_store.pixels import NOT_AN_IMAGE
    from box_store.places import files

    try:
        with open_image(BytesIO(data)) as image:
            ending = (image.format or "img").lower()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(NOT_AN_IMAGE, f"no image that Pillow can read: {error}") from error
    place = f"{split}/{name}.{'jpg' if ending in ('jpeg', 'mpo') else ending}"
    path = room / place
    if not path.exists() or path.stat().st_size != len(data):
        files.make_folder(path.parent)
        with files.replacing(path) as out:
            out.write(data)
    return place, image_size(path)


def boxes_of(
    value: Any, names: list[str] | None, where: str, problems: Problems
) -> list[tuple[str, list[float], bool]]:
    """Class, four numbers and whether it is a crowd, of each box of a struct of lists or a list of
    structs; what is no box is noted.
    """
    if isinstance(value, dict):
        # a struct of lists
        keys = [key for key, values in value.items() if isinstance(values, list)]
        length = max((len(value[key]) for key in keys), default=0)
        value = [
            {key: value[key][at] for key in keys if at < len(value[key])} for at in range(length)
        ]
    found = []
    for at, row in enumerate(value if isinstance(value, list) else ()):
        row = row if isinstance(row, dict) else {}
        box: Any = next((row[key] for key in _BOX if key in row), None)
        label = next((row[key] for key in _CLASS if key in row), None)
        if not _is_box(box) or label is None:
            problems.note("not a box", f"{where} box {at}: {box!r:.60} of class {label!r:.40}")
            continue
        if isinstance(label, int) and names is not None:
            if not 0 <= label < len(names):
                problems.note("unknown class index", f"{where} box {at}: {label}")
                continue
            label = names[label]
        elif isinstance(label, int):
            label = f"class {label}"
        found.append((str(label), [float(v) for v in box], bool(row.get("iscrowd"))))
    return found


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(each, int | float) and abs(each) < _LARGEST for each in value)
    )


def _fit_as_corners(images: Iterable[Row]) -> bool:
    as_extent = as_corners = 0
    for image in images:
        width, height = image.size
        for _, (x, y, a, b), _ in image.boxes:
            as_extent += x + a <= width + 1 and y + b <= height + 1
            as_corners += x < a <= width + 1 and y < b <= height + 1
    return as_corners > as_extent


def _fingerprint(tree: Tree, files: list[str]) -> str:
    stats = [(path, (tree.root / path).stat()) for path in files]
    told = repr([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])
    return hashlib.sha256((str(tree.root.resolve()) + told).encode()).hexdigest()[:24]


OPTION = {"boxes": "xywh or xyxy; by default what fits into the images"}
FORM = Form("parquet", "Hugging Face parquet", _recognise, _read, OPTION)
