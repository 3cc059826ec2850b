"""Pascal VOC: an XML file an image, corners counted from 1, splits as lists of names.

As the VOC2012 development kit's documentation has it (host.robots.ox.ac.uk/pascal/VOC/voc2012);
many tools write the same files with corners from 0, which is seen from the numbers of the whole
set.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from box_store.coco.rows import Problems
from box_store.forms.at_once import (
    Box,
    Classes,
    Labelled,
    assemble,
    beside,
    by_folder,
    role,
    size_of,
)
from box_store.forms.guesses import OPTION, Guesses
from box_store.forms.protocol import Form, Options, Reading, first_pixel, one_of
from box_store.forms.tree import Tree, parent, stem
from box_store.places.text import number as as_number

_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JPEGImage", "imgs", "img")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DIFFICULT = ("keep", "drop", "crowd")
_ROOT = re.compile(rb"<annotation[\s>]")
# corners looked at, spread over the set, to see where they begin
_PROBES = 1500
# what our own writer calls itself in `source/annotation`
WRITER = "teach-detr, corners from 1"


def _recognise(tree: Tree) -> str | None:
    folders = _xml_folders(tree)
    if not folders:
        return None
    n = sum(len(paths) for paths in folders.values())
    return f"{n} files in {', '.join(list(folders)[:3]) or '.'}"


def _xml_folders(tree: Tree) -> dict[str, list[str]]:
    """XML files by folder, of folders whose first file is an annotation."""
    if tree.file is not None:
        return {}
    found: dict[str, list[str]] = {}
    for path in tree.files("xml"):
        found.setdefault(parent(path), []).append(path)
    return {
        folder: paths
        for folder, paths in found.items()
        if any(_ROOT.search(tree.head(path)[:2000]) for path in paths[:3])
    }


def _read(tree: Tree, options: Options) -> Reading:
    difficult = one_of(options, "difficult", _DIFFICULT, ", ".join(_DIFFICULT), "keep")
    corners = first_pixel(options)
    files = [path for paths in _xml_folders(tree).values() for path in paths]
    first, shifted = _corners(tree, files)
    if corners is not None:
        first, shifted = float(corners), False
    notes = []
    if corners is None and first == 0:
        notes.append("corners are counted from 0 (VOC's own begin at 1; ,corners=1 says so)")
    if shifted:
        notes.append(
            "some right and lower corners are one pixel outside: all four corners are taken as "
            "shifted by one, as some tools write them (,corners=1 says otherwise)"
        )
    problems: dict[str, Problems] = {}
    reader = _Reader(tree, first, difficult, 0.0 if shifted else first, Guesses.of(options))
    members = _members(tree, files, reader, problems, notes)
    reading = assemble(
        tree, members, reader.read, reader.classes,
        lambda image, number: f"{reader.xml_of[image]} object {number}", problems,
    )  # fmt: skip
    if reader.n_difficult:
        what = {"keep": "kept", "drop": "left out", "crowd": "taken as crowds"}[difficult]
        notes.append(f"{reader.n_difficult} difficult objects are {what}")
    reading.notes += notes
    return reading


def _corners(tree: Tree, files: list[str]) -> tuple[float, bool]:
    """Where the first pixel is, and whether right and lower corners are shifted with it.

    0 if some corners touch 0, or they are no whole numbers; else 1. Shifted if corners pass the
    border by the pixel that they begin late.
    """
    zeros = ones = broken = whole = beyond = 0
    for path in files[:: max(1, len(files) // _PROBES)]:
        try:
            root = ET.parse(tree.root / path).getroot()
        except (ET.ParseError, OSError, ValueError):
            continue
        if _ours(root):
            return 1.0, False
        sides = [as_number(root.findtext(f"size/{key}")) for key in ("width", "height")]
        for box in root.iter("bndbox"):
            for key, side in zip(("xmax", "ymax"), sides, strict=True):
                value = as_number(box.findtext(key))
                beyond += bool(side) and value is not None and 0.5 < value - (side or 0) <= 1
            for key in ("xmin", "ymin"):
                value = as_number(box.findtext(key))
                zeros += value == 0
                ones += value == 1
                broken += value is not None and value % 1 != 0
                whole += value is not None and value % 1 == 0
    if zeros > ones or (broken > whole and not beyond):
        return 0.0, False
    return 1.0, beyond > 0


def _members(
    tree: Tree, files: list[str], reader: "_Reader", problems: dict[str, Problems], notes: list[str]
) -> dict[str, list[str]]:
    """Images by split, as paths from the root; `reader` learns which file describes which."""
    lists = _lists(tree)
    if not lists:
        found = Problems()
        images = [image for path in files if (image := reader.match(path, found)) is not None]
        members = by_folder(images)
        # which split a missing image was of nobody can say
        problems[next(iter(members))] = found
        notes += beside(tree, images)
        return members
    by_stem: dict[str, list[str]] = {}
    for path in files:
        by_stem.setdefault(stem(path), []).append(path)
    members = {}
    for split, listed in lists.items():
        mine = problems.setdefault(split, Problems())
        members[split] = []
        for number, name in _names(tree, listed):
            found = by_stem.get(name.rpartition("/")[2]) or by_stem.get(stem(name), [])
            if len(found) > 1:
                near = [path for path in found if parent(parent(path)) == _set_root(listed)]
                found = near or found
            if len(found) != 1:
                why = f"{len(found)} annotation files" if found else "no annotation file"
                mine.note("no annotation file", f"{listed} line {number}: {why} of {name!r}")
                continue
            image = reader.match(found[0], mine)
            if image is not None:
                members[split].append(image)
    union = _union(members)
    if union is not None and len(members) > 2:
        notes.append(f"{union} holds what train and val hold together")
    return members


def _union(members: dict[str, list[str]]) -> str | None:
    """The split that is train and val together, where there is one."""
    by_role = {role(name): set(paths) for name, paths in members.items() if role(name)}
    if "train" in by_role and "val" in by_role:
        both = by_role["train"] | by_role["val"]
        for name, paths in members.items():
            if role(name) is None and set(paths) == both:
                return name
    return None


def _lists(tree: Tree) -> dict[str, str]:
    """Lists of images by split. Lists of one class, whose lines end in 1 or -1, are passed over."""
    found: dict[str, str] = {}
    for path in tree.files("txt"):
        folder = parent(path)
        inside = folder.split("/")
        if "ImageSets" in inside or (role(stem(path)) and folder.count("/") == 0):
            if "ImageSets" in inside and inside[-1] not in ("Main", "ImageSets"):
                continue
            words = (
                tree.head(path).decode("utf-8-sig", "replace").strip().partition("\n")[0].split()
            )
            if not words or (len(words) == 2 and words[1] in ("1", "0", "-1")):
                continue
            found.setdefault(stem(path), path)
    return found


def _set_root(listed: str) -> str:
    """The folder that holds ImageSets."""
    return listed.partition("ImageSets")[0].rstrip("/")


def _names(tree: Tree, listed: str) -> Iterator[tuple[int, str]]:
    text = (tree.root / listed).read_bytes().decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words:
            # a name may have spaces; two paths are an image and its annotation
            name = words[0] if len(words) == 2 and words[1].endswith(".xml") else line.strip()
            name = name.replace("\\", "/")
            yield number, name if "." not in name.rpartition("/")[2] else _bare(name)


def _bare(name: str) -> str:
    """Without the suffix of an image or an annotation, which a name with dots may not have."""
    head, _, tail = name.rpartition(".")
    return head if tail.lower() in ("jpg", "jpeg", "png", "bmp", "xml", "tif", "tiff") else name


class _Reader:
    """XML files to boxes."""

    def __init__(
        self, tree: Tree, first: float, difficult: str, wider: float, guesses: Guesses
    ) -> None:
        self._tree = tree
        self._first = first
        self._wider = wider
        self._difficult = difficult
        self._guesses = guesses
        self.classes = Classes()
        self.xml_of: dict[str, str] = {}
        self.n_difficult = 0

    def match(self, path: str, problems: Problems) -> str | None:
        """The image of an annotation file; None, with a note, if it is not there."""
        folder = parent(path)
        above = parent(folder)
        bases = [f"{above}/{name}" if above else name for name in _IMAGE_FOLDERS]
        bases = [base for base in [folder, *bases, above] if base in self._tree.folders]
        # the annotation's own name first: `filename` goes stale when files are renamed
        found = self._tree.find_image(stem(path), *bases)
        if found is None:
            named = self._named(path)
            found = self._tree.find_image(named, *bases) if named else None
            if found is None:
                what = f" (nor {named!r})" if named else ""
                problems.note("image missing", f"{path}: {self._tree.missing(stem(path))}{what}")
                return None
        image = found[0]
        if image in self.xml_of and self.xml_of[image] != path:
            problems.note(
                "two annotation files of one image", f"{image}: {self.xml_of[image]} and {path}"
            )
            return None
        self.xml_of[image] = path
        return image

    def _named(self, path: str) -> str | None:
        try:
            root = ET.parse(self._tree.root / path).getroot()
        except (ET.ParseError, OSError, ValueError):
            return None
        return (root.findtext("filename") or root.findtext("path") or "").strip() or None

    def read(self, image: str, problems: Problems) -> Labelled | None:
        path = self.xml_of[image]
        try:
            # plain `open`: this is done for every image
            with open(f"{self._tree.root}/{path}", "rb", buffering=0) as file:  # noqa: PTH123
                root = ET.fromstring(file.read())
        except (ET.ParseError, OSError, ValueError, LookupError) as error:
            problems.note("annotation file not readable", f"{path}: {error}")
            return None
        size = self._size(root) or size_of(self._tree, image, problems)
        if size is None:
            return None
        boxes: list[Box] = []
        unlabelled, thin = False, _ours(root)
        for number, item in enumerate(root.findall("object"), 1):
            # a label tool that saves the file leaves our elements away
            guessed = item.find("teacher") is not None
            if guessed and self._guesses.drop(f"{path} object {number}", problems):
                unlabelled = True
                continue
            box = self._box(item, number, path, problems, thin)
            if box is not None:
                boxes.append(box)
        return Labelled(*size, boxes, unlabelled)

    def _size(self, root: ET.Element) -> tuple[int, int] | None:
        width, height = (as_number(root.findtext(f"size/{key}")) for key in ("width", "height"))
        if (
            width is None
            or height is None
            or width < 1
            or height < 1
            or max(width, height) > 2**31 - 1
        ):
            return None
        return int(width), int(height)

    def _box(
        self, item: ET.Element, number: int, path: str, problems: Problems, thin: bool
    ) -> Box | None:
        """The box of an object; thin: one of a pixel is meant."""
        parts = {part.tag: part for part in item}
        name = _text(parts.get("name"))
        if not name:
            problems.note("object without a class", f"{path} object {number}")
            return None
        box = parts.get("bndbox")
        if box is None and "polygon" in parts:
            box = _hull(parts["polygon"], self._first, self._wider)
        if box is None:
            oriented = "robndbox" in parts
            what = "robndbox, which is turned" if oriented else "no bndbox"
            problems.note(
                "oriented box" if oriented else "not a box", f"{path} object {number}: {what}"
            )
            return None
        corners = {side.tag: side.text for side in box}
        x1, y1, x2, y2 = (as_number(corners.get(key)) for key in _CORNERS)
        if x1 is None or y1 is None or x2 is None or y2 is None:
            problems.note("not a box", f"{path} object {number}: {corners}")
            return None
        crowd = False
        if _text(parts.get("difficult")) == "1":
            self.n_difficult += 1
            if self._difficult == "drop":
                return None
            crowd = self._difficult == "crowd"
        position = self.classes.position(name)
        assert position is not None
        first = self._first
        # a click is no object of one pixel
        wider = self._wider if thin or (x2 > x1 and y2 > y1) else 0.0
        return position, (x1 - first, y1 - first, x2 - x1 + wider, y2 - y1 + wider), number, crowd


def _ours(root: ET.Element) -> bool:
    """Whether we wrote it, corners from 1 whatever the numbers look like."""
    return root.findtext("source/annotation") == WRITER


def _hull(outline: ET.Element, first: float, wider: float) -> ET.Element | None:
    """The box around an outline of LabelMe's old XML, whose corners are counted from 0."""
    points = [(as_number(p.findtext("x")), as_number(p.findtext("y"))) for p in outline.iter("pt")]
    xs, ys = [x for x, _ in points if x is not None], [y for _, y in points if y is not None]
    if len(xs) < 2 or len(xs) != len(ys) or len(xs) != len(points):
        return None
    box = ET.Element("bndbox")
    ends = (min(xs) + first, min(ys) + first, max(xs) + first - wider, max(ys) + first - wider)
    for key, value in zip(_CORNERS, ends, strict=True):
        ET.SubElement(box, key).text = repr(value)
    return box


def _text(part: ET.Element | None) -> str:
    return (part.text or "").strip() if part is not None else ""


FORM = Form(
    "voc",
    "Pascal VOC",
    _recognise,
    _read,
    {
        "difficult": "keep (default), drop, or crowd: neither learnt nor held against a detector",
        **OPTION,
        "corners": "where the first pixel is: 1 as in VOC, or 0; by default the numbers decide",
    },
)
