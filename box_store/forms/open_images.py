"""Open Images: CSV of boxes in 0..1, classes as codes with a list of descriptions beside.

Columns as storage.googleapis.com/openimages/web/download_v7.html lists them.
"""

from collections.abc import Iterator

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import ALL, Box, Classes, Labelled, assemble, role, size_of
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import Tree, stem
from box_store.places.text import number as as_number
from box_store.places.text import table_rows

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


def _recognise(tree: Tree) -> str | None:
    return ", ".join(_files(tree)) or None


def _files(tree: Tree) -> list[str]:
    files = [tree.file] if tree.file is not None else list(tree.files("csv"))
    found = []
    for path in files:
        first = tree.head(path).decode("utf-8-sig", "replace").partition("\n")[0]
        if all(name in first.split(",") for name in _NEEDED[:2]) and "XMin" in first:
            found.append(path)
    return found


def _read(tree: Tree, options: Options) -> Reading:
    names = _descriptions(tree)
    classes = Classes()
    members: dict[str, list[str]] = {}
    problems: dict[str, Problems] = {}
    rows: dict[str, list[tuple[int, str, tuple[float, ...], bool]]] = {}
    files: dict[str, str] = {}
    spots: dict[str, str | None] = {}
    codes: set[str] = set()
    for path in _files(tree):
        split = next((part for part in stem(path).split("-") if role(part)), ALL)
        mine = problems.setdefault(split, Problems())
        for number, row in _rows(tree, path):
            where, code = f"{path} line {number}", row.get("LabelName", "")
            image = row.get("ImageID", "")
            if image not in spots:
                found = tree.find_image(image, split)
                spots[image] = None if found is None else found[0]
                if found is None:
                    mine.note("image missing", f"{where}: {tree.missing(image)}")
            spot = spots[image]
            if spot is None:
                continue
            members.setdefault(split, []).append(spot)
            files[spot] = path
            corners = [as_number(row.get(key)) for key in ("XMin", "YMin", "XMax", "YMax")]
            if not code or any(value is None for value in corners):
                mine.note("not a box", f"{where}: {code!r} {corners}")
                continue
            if code not in names:
                codes.add(code)
            values = tuple(value or 0.0 for value in corners)
            crowd = row.get("IsGroupOf") == "1"
            rows.setdefault(spot, []).append((number, names.get(code, code), values, crowd))
    if not members:
        raise DataError(f"{tree.place}: none of the images of {', '.join(_files(tree))} is there")

    def read(path: str, found: Problems) -> Labelled | None:
        size = size_of(tree, path, found)
        if size is None:
            return None
        boxes: list[Box] = []
        for number, name, (x1, y1, x2, y2), crowd in rows.get(path, ()):
            position = classes.position(name)
            assert position is not None
            kx, ky = size
            boxes.append(
                (position, (x1 * kx, y1 * ky, (x2 - x1) * kx, (y2 - y1) * ky), number, crowd)
            )
        return Labelled(*size, boxes)

    unique = {name: list(dict.fromkeys(paths)) for name, paths in members.items()}
    kept = {name: found for name, found in problems.items() if name in members}
    reading = assemble(
        tree, unique, read, classes, lambda path, n: f"{files.get(path, path)} line {n}", kept
    )
    if codes:
        reading.notes.append(f"{len(codes)} class codes have no description, such as {min(codes)}")
    return reading


def _rows(tree: Tree, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    names: list[str] = []
    for number, row in table_rows(tree.root / path):
        if names:
            yield number, dict(zip(names, row, strict=False))
        names = names or row


def _descriptions(tree: Tree) -> dict[str, str]:
    """Class names by code, from the list that the set brings."""
    for path in tree.files("csv"):
        if "class-descriptions" in path:
            rows = (row for _, row in table_rows(tree.root / path))
            return {row[0]: row[1] for row in rows if len(row) >= 2 and row[0].startswith("/")}
    return {}


FORM = Form("openimages", "Open Images CSV", _recognise, _read)
