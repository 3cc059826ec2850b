"""CSV: a row an object, as TensorFlow's tutorials have it, or with columns that the user names.

    filename,width,height,class,xmin,ymin,xmax,ymax

Rows of one image may stand anywhere. A row with a name and no box is an image without objects.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from box_store.coco.rows import Problems
from box_store.errors import DataError, UsageError
from box_store.forms.at_once import ALL, Box, Classes, Labelled, assemble, role, size_of
from box_store.forms.protocol import Form, Options, Reading, first_pixel
from box_store.forms.tree import IMAGE_SUFFIXES, Tree, parent, stem, suffix
from box_store.places.text import number as as_number
from box_store.places.text import table_rows

# names that columns go by, after lower case; the first is ours
_COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "image_path", "img", "path", "img_path",
             "image_name", "image_id", "imageid", "frame"),
    "class": ("class", "label", "name", "class_name", "category", "labels", "classname",
              "class_id", "category_id", "label_id"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "w": ("w", "bbox_width", "bbox_w", "box_width"),
    "h": ("h", "bbox_height", "bbox_h", "box_height"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "bbox": ("bbox", "box", "bounding_box"),
    "split": ("split", "set", "subset", "dataset", "partition"),
}  # fmt: skip
_KNOWN = {spelling: name for name, spellings in _COLUMNS.items() for spelling in spellings}
_CORNERS, _EXTENT = ("xmin", "ymin", "xmax", "ymax"), ("x", "y", "w", "h")
# four numbers in one column: x, y, width, height as in COCO
_LISTED = ("bbox",)
# of files without names of columns, as keras-retinanet reads them
_BARE = ["file", *_CORNERS, "class"]
_DELIMITERS = ",;\t|"
# relative coordinates may pass the border by rounding
_RELATIVE = 1.001
_ENOUGH_ONES = 3


@dataclass
class _Table:
    """One CSV file: what its columns are, and whether the first row is one of names."""

    path: str
    columns: list[str]
    delimiter: str
    has_names: bool

    @property
    def box(self) -> tuple[str, ...] | None:
        """The columns that make a box."""
        for wanted in (_CORNERS, _EXTENT, _LISTED):
            if all(name in self.columns for name in wanted):
                return wanted
        return None


def _recognise(tree: Tree) -> str | None:
    tables = _tables(tree, None)
    if not tables and tree.file is not None and suffix(tree.file) == "csv":
        return tree.file
    return ", ".join(table.path for table in tables[:3]) or None


def _tables(tree: Tree, columns: Sequence[str] | None) -> list[_Table]:
    if tree.file is not None:
        files = [tree.file] if suffix(tree.file) in ("csv", "tsv") else []
    else:
        files = [path for path in tree.files("csv", "tsv") if path.count("/") <= 2]
    found = (_table(tree, path, columns) for path in files)
    return [table for table in found if table is not None]


def _table(tree: Tree, path: str, columns: Sequence[str] | None) -> _Table | None:
    lines = tree.head(path).decode("utf-8-sig", "replace").splitlines()
    first = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    known = _columns([name.strip().lower() for name in names])
    has_names = "file" in known
    if columns is not None:
        known = list(columns) if len(names) >= len(columns) else []
        has_names = has_names or [name.strip() for name in names] == list(columns)
    elif not has_names and _is_bare(names):
        known = _BARE
    table = _Table(path, known, delimiter, has_names)
    return table if "file" in known and table.box is not None else None


def _is_bare(row: Sequence[str]) -> bool:
    """Whether a first row is already of an object: an image, four numbers, a class."""
    return (
        len(row) == len(_BARE)
        and suffix(row[0]) in IMAGE_SUFFIXES
        and all(as_number(text) is not None for text in row[1:5])
        and as_number(row[5]) is None
    )


def _columns(names: Sequence[str]) -> list[str]:
    known = [_KNOWN.get(name, name) for name in names]
    if "x" in known and "y" in known and "w" not in known and "width" in known:
        # x, y, width, height: no size of the image then
        known = [{"width": "w", "height": "h"}.get(name, name) for name in known]
    return known


@dataclass(slots=True)
class _Image:
    rows: list[tuple[int, str, tuple[float, ...]]] = field(default_factory=list)
    """line, class, four numbers"""
    width: int = 0
    height: int = 0
    table: _Table | None = None

    @property
    def source(self) -> str:
        """The file of its rows."""
        return self.table.path if self.table is not None else ""


def _read(tree: Tree, options: Options) -> Reading:
    asked = options.get("columns")
    columns = None
    if asked is not None:
        columns = _columns([name.strip().lower() for name in asked.replace(":", ",").split(",")])
        if "file" not in columns or _Table("", columns, ",", False).box is None:
            raise UsageError(
                f"columns={asked!r}: needs file and class, and xmin, ymin, xmax, ymax or x, y, w, "
                "h; other columns by any name"
            )
    corners = first_pixel(options)
    tables = _tables(tree, columns)
    if not tables:
        raise DataError(
            f"{tree.place}: no column names for a file and a box were found; name them, for "
            "example ,columns=file:class:xmin:ymin:xmax:ymax"
        )
    members: dict[str, list[str]] = {}
    problems: dict[str, Problems] = {}
    images: dict[str, _Image] = {}
    spots: dict[tuple[str, str, str], str | None] = {}
    for table in tables:
        default = _split_of(table.path) if len(tables) > 1 else ALL
        for number, row in _rows(tree, table):
            split = (row.get("split") or default).strip() or default
            mine = problems.setdefault(split, Problems())
            name = (row.get("file") or "").strip()
            where = f"{table.path} line {number}"
            if not name:
                mine.note("row without a file name", where)
                continue
            here = parent(table.path)
            spot = (here, split, name)
            if spot not in spots:
                bases = (here, f"{here}/images", f"{parent(here)}/images", "images", split)
                found = tree.find_image(name, *(base.strip("/") for base in bases))
                spots[spot] = None if found is None else found[0]
                if found is None:
                    mine.note("image missing", f"{where}: {tree.missing(name)}")
                elif found[1] == "tail":
                    mine.note(
                        "path of another machine, matched by its end",
                        f"{where}: {name!r} taken as {found[0]}",
                    )
            path = spots[spot]
            if path is None:
                continue
            members.setdefault(split, []).append(path)
            image = images.setdefault(path, _Image(table=table))
            _add(image, row, number, where, table, mine)
    classes = Classes()
    relative = _is_relative(images.values())
    first = float(corners) if corners is not None else _first_corner(images.values(), relative)

    def read(path: str, found: Problems) -> Labelled | None:
        image = images[path]
        size = (image.width, image.height) if image.width > 0 and image.height > 0 else None
        size = size or size_of(tree, path, found)
        if size is None:
            return None
        return Labelled(*size, list(_boxes(image, size, classes, relative, first)))

    reading = assemble(
        tree,
        {name: list(dict.fromkeys(paths)) for name, paths in members.items()},
        read,
        classes,
        lambda path, number: f"{images[path].source} line {number}",
        {name: found for name, found in problems.items() if name in members},
    )
    if not members:
        seen = Problems()
        for found in problems.values():
            seen.add(found)
        first_of = next((texts[0] for texts in seen.examples.values()), "there is no row")
        raise DataError(f"{tree.place}: no row is of an image that is there ({first_of})")
    if corners is None and first:
        reading.notes.append(
            "corners are counted from 1, as Pascal VOC's are: some are 1, none is 0 (,corners=0 "
            "says otherwise)"
        )
    if any(table.columns is _BARE for table in tables):
        reading.notes.append(
            f"without names of columns: {', '.join(_BARE)} (,columns=... says otherwise)"
        )
    if any(table.box is _LISTED for table in tables):
        reading.notes.append("the column of boxes is taken as x, y, width, height")
    if relative:
        reading.notes.append("coordinates lie in 0..1: they are taken as parts of width and height")
    return reading


def _split_of(path: str) -> str:
    """The split that one of several files is of, by its name or its folder's."""
    folder = parent(path).rpartition("/")[2]
    own = role(stem(path).split("_")[0].split("-")[0])
    return own or (folder if role(folder) else ALL)


def _rows(tree: Tree, table: _Table) -> Iterator[tuple[int, dict[str, str]]]:
    rows = table_rows(tree.root / table.path, table.delimiter)
    for number, row in rows:
        if number > 1 or not table.has_names:
            yield number, dict(zip(table.columns, row, strict=False))


def _add(
    image: _Image, row: dict[str, str], number: int, where: str, table: _Table, problems: Problems
) -> None:
    width, height = (as_number(row.get(key)) for key in ("width", "height"))
    if width is not None and height is not None and 1 <= width < 2**31 and 1 <= height < 2**31:
        if image.width and (image.width, image.height) != (int(width), int(height)):
            problems.note("rows of one image give two sizes", where)
        image.width, image.height = int(width), int(height)
    assert table.box is not None
    texts = [(row.get(key) or "").strip() for key in table.box]
    if table.box is _LISTED:
        texts = texts[0].strip("[]()").replace(",", " ").split() or [""]
    label = (row.get("class") or "").strip() if "class" in table.columns else "object"
    if not any(texts):
        # an image without objects
        return
    values = [as_number(text) for text in texts]
    if len(values) != 4 or None in values:
        problems.note("not a box", f"{where}: {texts}")
        return
    if not label:
        problems.note("object without a class", where)
        return
    x, y, a, b = (value or 0.0 for value in values)
    if table.box is _CORNERS:
        a, b = a - x, b - y
    image.rows.append((number, label, (x, y, a, b)))


def _is_relative(images: Iterable[_Image]) -> bool:
    """Whether no coordinate of the whole set passes 1."""
    highest, n = 0.0, 0
    for image in images:
        for _, _, (x, y, w, h) in image.rows:
            highest = max(highest, x + w, y + h)
            n += 1
    return n > 0 and highest <= _RELATIVE


def _first_corner(images: Iterable[_Image], relative: bool) -> float:
    """1 if corners are whole numbers of which some are 1 and none is 0, as conversions of Pascal
    VOC have them; else 0.
    """
    ones = 0
    for image in images:
        for _, _, (x, y, w, h) in image.rows:
            if relative or not image.table or image.table.box is not _CORNERS:
                return 0.0
            if min(x, y) <= 0 or any(value % 1 for value in (x, y, w, h)):
                return 0.0
            ones += (x == 1) + (y == 1)
    return float(ones >= _ENOUGH_ONES)


def _boxes(
    image: _Image, size: tuple[int, int], classes: Classes, relative: bool, first: float
) -> Iterator[Box]:
    kx, ky = size if relative else (1, 1)
    corners = image.table is not None and image.table.box is _CORNERS
    wider = first if corners else 0.0
    for number, label, (x, y, w, h) in image.rows:
        position = classes.position(label)
        assert position is not None
        add = wider if w > 0 and h > 0 else 0.0
        box = ((x - first) * kx, (y - first) * ky, (w + add) * kx, (h + add) * ky)
        yield position, box, number, False


FORM = Form(
    "csv",
    "CSV",
    _recognise,
    _read,
    {
        "columns": "names of the columns, separated by colons: file:class:xmin:ymin:xmax:ymax",
        "corners": "where the first pixel is: 0, or 1 as in Pascal VOC; else the numbers decide",
    },
)
