"""YOLO: a text file an image, a row an object, `class x_centre y_centre width height` in 0..1.

Formats as Ultralytics documents them (docs.ultralytics.com/datasets/detect, .../segment, .../obb)
and as darknet's `obj.data` has them.
"""

from typing import Any

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import assemble
from box_store.forms.protocol import Form, Options, Reading, one_of
from box_store.forms.tree import Tree
from box_store.forms.yolo_layout import (
    NAME_FILES,
    configuration,
    label_file,
    label_folders,
    listed_file,
    load,
    members_of,
    root_of,
    unmatched,
)
from box_store.forms.yolo_rows import MOST_CLASSES, RowReader
from box_store.places.text import number as as_number

_HULL = "hull"
EMPTY, UNLABELLED = "empty", "unlabelled"


def _recognise(tree: Tree) -> str | None:
    found = configuration(tree)
    if found is not None:
        return found
    # one file that is no configuration is none of it
    pairs = [] if tree.file is not None else label_folders(tree)
    return f"labels in {pairs[0] or '.'}" if pairs else None


def _read(tree: Tree, options: Options) -> Reading:
    hull = one_of(options, "oriented", ("refuse", _HULL), f"refuse or {_HULL}", "refuse")
    config = configuration(tree)
    notes: list[str] = []
    table: dict[str, Any] = {}
    if config is not None:
        table = load(tree, config)
    tree, base = root_of(tree, config, table, notes)
    problems: dict[str, Problems] = {}
    members = members_of(tree, base, table, problems)
    notes += unmatched(tree, members.values())
    names = _names(tree, table, notes)
    count = as_number(str(table.get("nc", table.get("classes"))))
    if names is not None and count is not None and count != len(names):
        notes.append(f"the configuration says {count:g} classes, and names {len(names)}")
    words = f"{EMPTY} or {UNLABELLED}"
    missing = one_of(options, "missing", (EMPTY, UNLABELLED), words, EMPTY)
    reader = RowReader(tree, names, "kpt_shape" in table, unlabelled=missing == UNLABELLED)
    reading = assemble(
        tree,
        members,
        reader.read,
        reader.classes,
        lambda path, n: f"{label_file(tree, path)} line {n}",
        problems,
    )
    if "missing" not in options:
        reader.refuse_no_labels()
    if hull != _HULL:
        reader.refuse_oriented()
    reading.notes += [*notes, *reader.notes()]
    return reading


def _names(tree: Tree, table: dict[str, Any], notes: list[str]) -> list[str] | None:
    """Class names by index; None if nothing says them."""
    given = table.get("names")
    if isinstance(given, str):
        path = listed_file(tree, "", given.replace("\\", "/"))
        if path is None:
            raise DataError(f"{tree.place}: the file of class names {given} is not there")
        return _lines(tree, path)
    if isinstance(given, list):
        return [str(name) for name in given]
    if isinstance(given, dict):
        numbers = {as_number(str(key)): str(name) for key, name in given.items()}
        if None in numbers or any(
            n != int(n) or not 0 <= n < MOST_CLASSES for n in numbers if n is not None
        ):
            raise DataError(f"{tree.place}: names must be numbered from 0, got {list(given)[:5]}")
        top = int(max((n for n in numbers if n is not None), default=-1))
        holes = [str(at) for at in range(top) if float(at) not in numbers]
        if holes:
            notes.append(f"names skip {', '.join(holes[:9])}: called `class {holes[0]}` and so on")
        return [numbers.get(float(at), f"class {at}") for at in range(top + 1)]
    if given is not None:
        raise DataError(f"{tree.place}: names should be a list or a table, got {given!r:.60}")
    for path in tree.files("txt", "names", "labels"):
        if path.rpartition("/")[2].lower() in NAME_FILES:
            return _lines(tree, path)
    notes.append("nothing says what classes are called: they are named by their number")
    return None


def _lines(tree: Tree, path: str) -> list[str]:
    text = (tree.root / path).read_bytes().decode("utf-8-sig", "replace")
    return [line.strip() for line in text.rstrip().splitlines()]


FORM = Form(
    "yolo",
    "YOLO",
    _recognise,
    _read,
    {
        "oriented": "refuse (default), or hull: take the upright box around four corners",
        "missing": "an image without a label file: empty (default: nothing is in it), or "
        "unlabelled (nobody has looked at it)",
    },
)
