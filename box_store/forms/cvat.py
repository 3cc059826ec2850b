"""CVAT for images 1.1: one XML file with all images, their boxes and other shapes.

As CVAT's documentation of the format has it. A box whose source is `auto` was made by a machine and
touched by nobody: CVAT makes `semi-auto` of it when a person edits it. Polygons and ellipses are
the boxes around them.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field

from box_store.coco.rows import Box, Problems
from box_store.errors import DataError
from box_store.forms.at_once import ALL, Classes, Labelled, assemble, by_folder, role, size_of
from box_store.forms.guesses import OPTION, Guesses
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import Tree, parent, stem
from box_store.places.text import number as as_number

# a tag of the image, which a person takes away when all of it is labelled
UNLABELLED = "unlabelled"
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_OUTLINES = ("polygon", "ellipse")
_IMAGE_FOLDERS = ("images", "data")


def _recognise(tree: Tree) -> str | None:
    files = _files(tree)
    return ", ".join(files[:3]) + (", ..." if len(files) > 3 else "") if files else None


def _files(tree: Tree) -> list[str]:
    return [path for path in tree.few("xml") if _is_cvat(tree.head(path)[:2000])]


def _is_cvat(head: bytes) -> bool:
    return b"<annotations" in head and b"<version>" in head


@dataclass
class _Image:
    """One `image` element, and where it was."""

    path: str
    element: ET.Element


@dataclass
class _Reader:
    """Elements to boxes."""

    tree: Tree
    guesses: Guesses
    classes: Classes = field(default_factory=Classes)
    images: dict[str, _Image] = field(default_factory=dict)

    def read(self, image: str, problems: Problems) -> Labelled | None:
        found = self.images[image]
        size = self._size(found.element) or size_of(self.tree, image, problems)
        if size is None:
            return None
        boxes: list[Box] = []
        unlabelled = False
        for number, shape in enumerate(found.element, 1):
            if shape.tag == "tag":
                unlabelled |= shape.get("label") == UNLABELLED
                continue
            where = self.describe(image, number)
            attributes = {a.get("name"): (a.text or "").strip() for a in shape.iter("attribute")}
            # only what we wrote says so; a person who edits a box makes it `semi-auto`
            confirmed = attributes.get("confirmed") == "true"
            guessed = shape.get("source") == "auto" and not confirmed
            if guessed and self.guesses.drop(where, problems):
                unlabelled = True
                continue
            box = self._box(shape, where, problems)
            if box is not None:
                position = self.classes.position(shape.get("label", "").strip())
                assert position is not None
                boxes.append((position, box, number, attributes.get("crowd") == "true"))
        return Labelled(*size, boxes, unlabelled)

    def describe(self, image: str, number: int) -> str:
        found = self.images[image]
        return f"{found.path} image {found.element.get('name')!r} shape {number}"

    def _size(self, element: ET.Element) -> tuple[int, int] | None:
        width, height = as_number(element.get("width")), as_number(element.get("height"))
        if not width or not height or not (min(width, height) >= 1 and max(width, height) < 2**31):
            return None
        return int(width), int(height)

    def _box(
        self, shape: ET.Element, where: str, problems: Problems
    ) -> tuple[float, float, float, float] | None:
        """x, y, width, height; None, with a note, where the shape is no upright box."""
        if not shape.get("label", "").strip():
            problems.note("object without a class", where)
            return None
        if shape.get("outside") == "1":
            return None
        if as_number(shape.get("rotation")):
            problems.note("oriented box", f"{where}: turned by {shape.get('rotation')} degrees")
            return None
        if shape.tag == "box":
            corners = [as_number(shape.get(key)) for key in _CORNERS]
        elif shape.tag in _OUTLINES:
            corners = _around(shape)
        else:
            problems.note("shape that is no box", f"{where}: {shape.tag}")
            return None
        x1, y1, x2, y2 = corners
        if x1 is None or y1 is None or x2 is None or y2 is None:
            problems.note("not a box", f"{where}: {dict(shape.attrib)}")
            return None
        return x1, y1, x2 - x1, y2 - y1


def _around(shape: ET.Element) -> list[float | None]:
    """Corners of the box around a polygon or an ellipse."""
    if shape.tag == "ellipse":
        cx, cy, rx, ry = (as_number(shape.get(key)) for key in ("cx", "cy", "rx", "ry"))
        if cx is None or cy is None or rx is None or ry is None:
            return [None] * 4
        return [cx - rx, cy - ry, cx + rx, cy + ry]
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    xs = [as_number(point[0]) for point in points]
    ys = [as_number(point[1]) if len(point) == 2 else None for point in points]
    if None in xs or None in ys:
        return [None] * 4
    return [min(xs), min(ys), max(xs), max(ys)]  # type: ignore[type-var, list-item]


def _read(tree: Tree, options: Options) -> Reading:
    reader = _Reader(tree, Guesses.of(options))
    problems = Problems()
    subsets: dict[str, list[str]] = {}
    broken: list[str] = []
    names: list[str] = []
    files = _files(tree)
    for path in files:
        # of files apart each is a split
        apart = stem(path) if len(files) > 1 and role(stem(path)) else ""
        try:
            root = ET.parse(tree.root / path).getroot()
        except (ET.ParseError, OSError, ValueError, LookupError) as error:
            broken.append(f"{path}: {error}")
            problems.note("annotation file not readable", broken[-1])
            continue
        if root.find("track") is not None:
            raise DataError(
                f"{tree.root / path} is CVAT for video, whose frames are no files: export the task "
                "as CVAT for images, or as COCO, with images"
            )
        names += [label.findtext("name") or "" for label in root.findall(".//labels/label")]
        for element in root.findall("image"):
            subset = element.get("subset") or apart
            _add(reader, path, element, subset, subsets, problems)
    if not reader.images:
        why = broken[0] if broken else "no image of the annotations is there"
        raise DataError(f"{tree.place}: {why}")
    for name in dict.fromkeys(name.strip() for name in names):
        if name and name != UNLABELLED:
            reader.classes.position(name)
    members = _members(subsets, list(reader.images))
    first = next(iter(members))
    return assemble(tree, members, reader.read, reader.classes, reader.describe, {first: problems})


def _add(
    reader: _Reader,
    path: str,
    element: ET.Element,
    subset: str,
    subsets: dict[str, list[str]],
    problems: Problems,
) -> None:
    """Find the image of an element, and note it in its subset."""
    tree, name, here = reader.tree, element.get("name") or "", parent(path)
    bases = [f"{here}/{folder}".strip("/") for folder in (*_IMAGE_FOLDERS, f"images/{subset}")]
    found = tree.find_image(name, here, *bases) if name else None
    if found is None:
        problems.note("image missing", f"{path}: {tree.missing(name) if name else 'no name'}")
        return
    image = found[0]
    if image in reader.images:
        other = reader.images[image]
        problems.note("image listed twice", f"{image}: in {other.path} and {path}")
        return
    reader.images[image] = _Image(path, element)
    subsets.setdefault(subset, []).append(image)


def _members(subsets: dict[str, list[str]], images: list[str]) -> dict[str, list[str]]:
    """By CVAT's subsets, where it tells any; else by folders."""
    named = {name: paths for name, paths in subsets.items() if name}
    if not named or (len(subsets) == 1 and role(next(iter(subsets))) is None):
        return by_folder(images)
    return {name or ALL: paths for name, paths in subsets.items()}


FORM = Form("cvat", "CVAT for images", _recognise, _read, OPTION)
