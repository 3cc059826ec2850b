"""Hugging Face image folders: photos, and a `metadata.jsonl` with a row an image.

    {"file_name": "0001.png", "objects": {"bbox": [[302, 109, 73, 52]], "categories": [0]}}

As huggingface.co/docs/datasets/image_dataset (object detection) has it. Classes are named as they
stand there; numbers have no names in such a folder.
"""

import json
from typing import Any

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import ALL, Classes, role, size_of
from box_store.forms.parquet import OPTION, Row, are_corners, assemble_rows, boxes_of, told_kind
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import Tree, parent
from box_store.places.text import lines_of

_NAME = "metadata.jsonl"
_OBJECTS = ("objects", "annotations", "boxes")


def _recognise(tree: Tree) -> str | None:
    files = _files(tree)
    return ", ".join(files[:3]) + (", ..." if len(files) > 3 else "") if files else None


def _files(tree: Tree) -> list[str]:
    files = [tree.file] if tree.file is not None else list(tree.files("jsonl"))
    named = (path for path in files if path.rpartition("/")[2] == _NAME)
    return [path for path in named if _has_objects(tree.head(path))]


def _has_objects(head: bytes) -> bool:
    return any(f'"{key}"'.encode() in head for key in _OBJECTS)


def _read(tree: Tree, options: Options) -> Reading:
    are_corners(options, ())
    rows: dict[str, Row] = {}
    members: dict[str, list[str]] = {}
    problems: dict[str, Problems] = {}
    everything = Problems()
    for file in _files(tree):
        folder = parent(file)
        split = next((part for part in reversed(folder.split("/")) if role(part)), ALL)
        found = Problems()
        for number, line in enumerate(lines_of(tree.root / file), 1):
            if line.strip():
                _add(tree, file, number, line, rows, members.setdefault(split, []), found)
        problems.setdefault(split, Problems()).add(found)
        everything.add(found)
    if not rows:
        first = next((texts[0] for texts in everything.examples.values()), "there is no row")
        raise DataError(f"{tree.place}: no row is of an image that is there ({first})")
    corners = are_corners(options, rows.values())
    reading = assemble_rows(tree, members, rows, Classes(), corners, problems)
    reading.notes += told_kind(options, corners)
    return reading


def _add(
    tree: Tree,
    file: str,
    number: int,
    line: str,
    rows: dict[str, Row],
    members: list[str],
    problems: Problems,
) -> None:
    where = f"{file} line {number}"
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        problems.note("row that is no JSON", f"{where}: {error}")
        return
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str):
        problems.note("row without a file name", where)
        return
    found = tree.find_image(name, parent(file))
    if found is None:
        problems.note("image missing", f"{where}: {tree.missing(name)}")
        return
    size = size_of(tree, found[0], problems)
    if size is None:
        return
    objects = next((row[key] for key in _OBJECTS if key in row), None)
    rows[found[0]] = Row(file, number, size, boxes_of(objects, None, where, problems))
    members.append(found[0])


FORM = Form("imagefolder", "Hugging Face image folder", _recognise, _read, OPTION)
