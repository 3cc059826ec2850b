"""labelme: a JSON file an image, with shapes; rectangles, polygons and circles are boxes here.

As labelme's own `label_file.py` and `shape.py` write them; X-AnyLabeling and AnyLabeling write the
same.
"""

import math
from typing import Any

from box_store.coco.document import read_document
from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import Box, Classes, Labelled, assemble, beside, by_role, size_of
from box_store.forms.guesses import OPTION, Guesses
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import Tree, parent, stem, suffix


def _recognise(tree: Tree) -> str | None:
    files = _files(tree)
    if not files:
        return None
    return files[0] if len(files) == 1 else f"{len(files)} files such as {files[0]}"


def _files(tree: Tree) -> list[str]:
    if tree.file is not None:
        return [tree.file] if suffix(tree.file) == "json" and _is_labelme(tree, tree.file) else []
    by_folder: dict[str, list[str]] = {}
    for path in tree.files("json"):
        by_folder.setdefault(parent(path), []).append(path)
    return [
        path
        for paths in by_folder.values()
        if any(_is_labelme(tree, path) for path in paths[:3])
        for path in paths
    ]


def _is_labelme(tree: Tree, path: str) -> bool:
    head = tree.head(path).replace(b"\0", b"")
    return b'"shapes"' in head and b'"categories"' not in head


def _read(tree: Tree, options: Options) -> Reading:
    problems = Problems()
    documents: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in _files(tree):
        try:
            document = read_document(tree.root / path)
        except DataError as error:
            problems.note("annotation file not readable", str(error))
            continue
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            problems.note("annotation file not readable", f"{path}: no list `shapes`")
            continue
        named = document.get("imagePath")
        names = [stem(path)] + ([named] if isinstance(named, str) else [])
        spots = (tree.find_image(name, parent(path)) for name in names)
        found = next((spot for spot in spots if spot is not None), None)
        if found is None:
            inside = " (its pixels are inside the JSON alone)" if document.get("imageData") else ""
            problems.note("image missing", f"{path}: {tree.missing(names[-1])}{inside}")
            continue
        document.pop("imageData", None)
        if found[0] in documents:
            other = documents[found[0]][0]
            problems.note("two annotation files of one image", f"{found[0]}: {other} and {path}")
            continue
        documents[found[0]] = path, document
    members = by_role(list(documents))
    if not documents:
        raise DataError(f"{tree.place}: no image of the annotation files is there")
    classes, guesses = Classes(), Guesses.of(options)

    def read(image: str, found: Problems) -> Labelled | None:
        path, document = documents[image]
        width, height = document.get("imageWidth"), document.get("imageHeight")
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            size = (width, height)
        else:
            size = size_of(tree, image, found)
        if size is None:
            return None
        boxes: list[Box] = []
        # a person takes the flag away when all is labelled
        unlabelled = _flag(document, "unlabelled")
        for number, shape in enumerate(document["shapes"], 1):
            where = f"{path} shape {number}"
            if unlabelled and _is_guess(shape) and guesses.drop(where, found):
                continue
            box = _shape(shape, where, found)
            position = classes.position(box[0]) if box else None
            if box and position is not None:
                boxes.append((position, box[1], number, _flag(shape, "crowd")))
        return Labelled(*size, boxes, unlabelled and not guesses.keep)

    reading = assemble(
        tree, members, read, classes, lambda image, n: f"{documents[image][0]} shape {n}",
        {next(iter(members)): problems},
    )  # fmt: skip
    reading.notes += beside(tree, documents)
    return reading


def _flag(value: dict[str, Any], name: str) -> bool:
    flags = value.get("flags")
    return isinstance(flags, dict) and flags.get(name) is True


def _is_guess(shape: Any) -> bool:
    return isinstance(shape, dict) and bool(shape.get("teacher"))


def _shape(
    shape: Any, where: str, problems: Problems
) -> tuple[str, tuple[float, float, float, float]] | None:
    """Label and box of a shape; None, with a note, if it is no box."""
    if not isinstance(shape, dict):
        problems.note("not a box", where)
        return None
    label, kind = shape.get("label"), shape.get("shape_type") or "polygon"
    if not isinstance(label, str) or not label.strip():
        problems.note("object without a class", where)
        return None
    points = _points(shape.get("points"))
    if points is None:
        problems.note("not a box", f"{where}: points are no list of pairs of numbers")
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if kind == "circle" and len(points) == 2:
        radius = math.dist(points[0], points[1])
        return label.strip(), (xs[0] - radius, ys[0] - radius, 2 * radius, 2 * radius)
    if kind == "rotation":
        problems.note("oriented box", where)
        return None
    if kind not in ("rectangle", "polygon", "mask") or len(points) < 2:
        problems.note("shape that is no box", f"{where}: {kind}")
        return None
    return label.strip(), (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def _points(value: Any) -> list[tuple[float, float]] | None:
    if not isinstance(value, list) or not value:
        return None
    points = []
    for point in value:
        if not isinstance(point, list) or len(point) < 2:
            return None
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in point[:2]):
            return None
        points.append((float(point[0]), float(point[1])))
    return points


FORM = Form("labelme", "labelme", _recognise, _read, OPTION)
