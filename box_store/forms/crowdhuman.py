"""CrowdHuman's .odgt: a JSON object a line, an image each; boxes of head, visible and full body.

As www.crowdhuman.org/download.html describes it. Regions to be ignored (`mask`, `ignore`) are
crowds here: neither learnt nor held against a detector.
"""

import json
import math
from typing import Any

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import ALL, Box, Classes, Labelled, assemble, role, size_of
from box_store.forms.protocol import Form, Options, Reading, one_of
from box_store.forms.tree import Tree, stem, suffix
from box_store.places.text import lines_of

_BOXES = ("fbox", "vbox", "hbox")


def _recognise(tree: Tree) -> str | None:
    return ", ".join(_files(tree)) or None


def _files(tree: Tree) -> list[str]:
    if tree.file is not None:
        return [tree.file] if suffix(tree.file) == "odgt" else []
    return list(tree.files("odgt"))


def _read(tree: Tree, options: Options) -> Reading:
    words = "fbox (full body), vbox (visible) or hbox (head)"
    which = one_of(options, "box", _BOXES, words, "fbox")
    members: dict[str, list[str]] = {}
    problems: dict[str, Problems] = {}
    boxes_of: dict[str, tuple[str, list[Any]]] = {}
    for path in _files(tree):
        split = next((part for part in stem(path).split("_") if role(part)), ALL)
        mine = problems.setdefault(split, Problems())
        for number, line in enumerate(lines_of(tree.root / path), 1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                row = json.loads(line)
                name, boxes = row["ID"], row["gtboxes"]
            except (ValueError, KeyError, TypeError, RecursionError):
                mine.note("row not readable", f"{where}: expected an object with ID and gtboxes")
                continue
            found = tree.find_image(str(name))
            if found is None or not isinstance(boxes, list):
                mine.note("image missing", f"{where}: {tree.missing(str(name))}")
                continue
            members.setdefault(split, []).append(found[0])
            boxes_of[found[0]] = where, boxes
    if not members:
        raise DataError(f"{tree.place}: none of the images of {', '.join(_files(tree))} is there")
    classes = Classes()

    def read(image: str, found: Problems) -> Labelled | None:
        where, rows = boxes_of[image]
        size = size_of(tree, image, found)
        if size is None:
            return None
        boxes: list[Box] = []
        for number, row in enumerate(rows, 1):
            box = _box(row, which, f"{where} box {number}", found)
            position = classes.position(box[0]) if box else None
            if box and position is not None:
                boxes.append((position, box[1], number, box[2]))
        return Labelled(*size, boxes)

    kept = {name: found for name, found in problems.items() if name in members}
    reading = assemble(
        tree, members, read, classes, lambda image, n: f"{boxes_of[image][0]} box {n}", kept
    )
    reading.notes.append(f"boxes are {which} (option box: fbox full body, vbox visible, hbox head)")
    return reading


def _box(
    row: Any, which: str, where: str, problems: Problems
) -> tuple[str, tuple[float, float, float, float], bool] | None:
    if not isinstance(row, dict):
        problems.note("not a box", where)
        return None
    tag, extra = row.get("tag", "person"), row.get("extra")
    masked = tag == "mask" or (isinstance(extra, dict) and extra.get("ignore") == 1)
    box = row.get(which) or (row.get("fbox") if masked else None)
    numbers = isinstance(box, list) and len(box) == 4 and all(
        isinstance(value, int | float) and math.isfinite(value) for value in box
    )  # fmt: skip
    if not numbers or not isinstance(box, list):
        problems.note("not a box", f"{where}: no {which}")
        return None
    x, y, w, h = (float(value) for value in box)
    # what is ignored is of the one class that there is
    return ("person" if tag == "mask" else str(tag)), (x, y, w, h), masked


FORM = Form(
    "crowdhuman",
    "CrowdHuman",
    _recognise,
    _read,
    {"box": "fbox (default, full body), vbox (visible part) or hbox (head)"},
)
