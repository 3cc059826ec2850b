"""YOLO: a text file an image, a row an object, `class x_centre y_centre width height` in 0..1.

Formats as Ultralytics documents them (docs.ultralytics.com/datasets/detect, .../segment, .../obb)
and as darknet's `obj.data` has them.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from box_store.coco.rows import Problems
from box_store.errors import DataError, UsageError
from box_store.forms.at_once import ALL, Box, Classes, Labelled, assemble, by_folder, role, size_of
from box_store.forms.protocol import Form, Options, Reading
from box_store.forms.tree import IMAGE_SUFFIXES, Tree, parent, stem, suffix
from box_store.places.text import number as as_number

_NAME_FILES = ("classes.txt", "obj.names", "labels.names", "_darknet.labels", "class.names")
# corners of a drawn rectangle agree to some thousandths of its size
_RECTANGLE = 0.02
_HULL = "hull"
_MOST_CLASSES = 100_000


def _recognise(tree: Tree) -> str | None:
    found = _configuration(tree)
    if found is not None:
        return found
    pairs = _label_folders(tree)
    return f"labels in {pairs[0] or '.'}" if pairs else None


def _read(tree: Tree, options: Options) -> Reading:
    hull = options.get("oriented", "refuse")
    if hull not in ("refuse", _HULL):
        raise UsageError(f"oriented={hull!r}: expected refuse or {_HULL}")
    config = _configuration(tree)
    notes: list[str] = []
    table: dict[str, Any] = {}
    if config is not None:
        table = _load(tree, config)
    tree, base = _root(tree, config, table, notes)
    problems: dict[str, Problems] = {}
    members = _members(tree, base, table, problems)
    names = _names(tree, table, notes)
    reader = _Reader(tree, names, "kpt_shape" in table)
    reading = assemble(
        tree,
        members,
        reader.read,
        reader.classes,
        lambda path, n: f"{reader.file(path)} line {n}",
        problems,
    )
    if hull != _HULL:
        reader.refuse_oriented()
    reading.notes += [*notes, *reader.notes()]
    return reading


def _configuration(tree: Tree) -> str | None:
    """The file that says where images are and what classes are called."""
    if tree.file is not None:
        wanted = suffix(tree.file) in ("yaml", "yml", "data")
        return tree.file if wanted else None
    candidates = [path for path in tree.files("yaml", "yml") if path.count("/") <= 1]
    for path in sorted(candidates, key=lambda path: (path.count("/"), path)):
        head = tree.head(path)
        if (b"names" in head or b"nc:" in head) and (b"train" in head or b"val" in head):
            return path
    for path in tree.files("data"):
        head = tree.head(path)
        if path.count("/") <= 1 and b"names" in head and b"=" in head:
            return path
    return None


def _label_folders(tree: Tree) -> list[str]:
    """Folders of label files beside folders of images, where no configuration names them."""
    found = []
    for folder, names in tree.folders.items():
        texts = [name for name in names if suffix(name) == "txt" and name not in _NAME_FILES]
        if not texts:
            continue
        stems = {stem(name) for name in texts}
        for twin in dict.fromkeys((_twin(folder, "labels", "images"), folder)):
            images = [n for n in tree.folders.get(twin, ()) if suffix(n) in IMAGE_SUFFIXES]
            if any(stem(name) in stems for name in images) and _is_rows(tree, folder, texts):
                found.append(folder)
                break
    return found


def _is_rows(tree: Tree, folder: str, names: Sequence[str]) -> bool:
    for name in names[:20]:
        head = tree.head(f"{folder}/{name}" if folder else name).decode("utf-8", "replace")
        line = head.strip().partition("\n")[0]
        if line:
            words = line.split()
            return len(words) >= 5 and all(as_number(word) is not None for word in words)
    return False


def _twin(folder: str, old: str, new: str) -> str:
    """The folder with its last part called `old` renamed."""
    parts = folder.split("/")
    for at in range(len(parts) - 1, -1, -1):
        if parts[at].lower() == old:
            return "/".join([*parts[:at], new, *parts[at + 1 :]])
    return folder


def _load(tree: Tree, config: str) -> dict[str, Any]:
    path = tree.root / config
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if suffix(config) == "data":
        rows = (line.partition("=") for line in text.splitlines() if "=" in line)
        table: Any = {key.strip(): value.strip() for key, _, value in rows}
        table.pop("backup", None)
        return table
    import yaml

    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected a table with train, val and names, got {table!r:.60}")
    return table


def _root(
    tree: Tree, config: str | None, table: dict[str, Any], notes: list[str]
) -> tuple[Tree, str]:
    """The files, and the folder in them that paths of the configuration begin at."""
    here = parent(config or "")
    given = table.get("path")
    if not isinstance(given, str) or not given.strip():
        return tree, here
    named = Path(given.strip()).expanduser()
    if not named.is_absolute():
        folder = tree.root / here
        for start in (folder, folder.parent):
            place = (start / named).resolve()
            if place.is_dir() and place.is_relative_to(tree.root.resolve()):
                inside = place.relative_to(tree.root.resolve()).as_posix()
                return tree, "" if inside == "." else inside
            if place.is_dir() and start == folder:
                return Tree(place), ""
    elif named.is_dir():
        same = named.resolve() == tree.root.resolve()
        return (tree, "") if same else (Tree(named), "")
    notes.append(f"{config}: path {given!r} is not on this machine; files are looked for beside it")
    return tree, here


def _members(
    tree: Tree, base: str, table: dict[str, Any], problems: dict[str, Problems]
) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for split in _split_keys(table):
        entries = table[split] if isinstance(table[split], list) else [table[split]]
        found = problems.setdefault(split, Problems())
        paths: list[str] = []
        for entry in entries:
            paths += _entry(tree, base, str(entry), split, found)
        if paths or found.counts:
            members[split] = paths
        else:
            del problems[split]
    if members:
        return members
    if table:
        listed = [f"{key}: {table[key]}" for key in _split_keys(table)]
        if listed:
            raise DataError(
                f"{tree.place}: none of {', '.join(listed)} is there (looked in {tree.root / base})"
            )
    folders = _label_folders(tree)
    images = [
        f"{twin}/{name}" if twin else name
        for folder in folders
        for twin in [_image_folder(tree, folder)]
        for name in tree.folders.get(twin, ())
        if suffix(name) in IMAGE_SUFFIXES
    ]
    if not images:
        raise DataError(f"{tree.place}: no image with a label file was found")
    return by_role(images)


def _split_keys(table: dict[str, Any]) -> list[str]:
    """Keys whose values are images: `train` and the like, also with a year as datumaro has it."""
    return [str(key) for key, value in table.items() if value and role(str(key))]


def by_role(images: Sequence[str]) -> dict[str, list[str]]:
    """As `by_folder`; images/train and train/images alike."""
    plain = by_folder(images)
    if ALL not in plain:
        return plain
    inner = {path: path.partition("/")[2] for path in images if path.startswith("images/")}
    if len(inner) == len(images):
        again = by_folder(list(inner.values()))
        return {name: [f"images/{path}" for path in paths] for name, paths in again.items()}
    return plain


def _image_folder(tree: Tree, labels: str) -> str:
    twin = _twin(labels, "labels", "images")
    return twin if twin in tree.folders else labels


def _entry(tree: Tree, base: str, entry: str, split: str, problems: Problems) -> list[str]:
    """The images that one entry of the configuration names: a folder, or a file that lists them."""
    entry = entry.strip().replace("\\", "/")
    folder = _folder(tree, base, entry)
    if folder is not None:
        inside = [path for path in tree.images if not folder or path.startswith(f"{folder}/")]
        return inside
    if entry.endswith(".txt"):
        listed = _listed_file(tree, base, entry)
        if listed is not None:
            return list(_list(tree, base, listed, problems))
    problems.note(
        "split not found", f"{split}: {entry} is neither a folder of images nor a list of them"
    )
    return []


def _folder(tree: Tree, base: str, entry: str) -> str | None:
    """The folder that an entry means: below the base, else the one whose path ends like it."""
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    if entry.startswith("/"):
        place = Path(entry)
        root = tree.root.resolve()
        if place.is_dir() and place.resolve().is_relative_to(root):
            inside = place.resolve().relative_to(root).as_posix()
            return "" if inside == "." else inside
    plain = [part for part in parts if part != ".."]
    for start in range(len(plain) + 1 if entry.startswith("/") else 1):
        path = "/".join([*(base.split("/") if base else []), *plain[start:]])
        # a base alone is the whole data set, which no entry means that names a folder
        if path in tree.folders and (plain[start:] or not plain):
            return path
        below = [f for f in tree.folders if f.startswith(f"{path}/")]
        if plain[start:] and below:
            return path
    return None


def _listed_file(tree: Tree, base: str, entry: str) -> str | None:
    plain = [part for part in entry.split("/") if part not in ("", ".", "..")]
    for start in range(len(plain)):
        for root in dict.fromkeys((base, "")):
            path = "/".join([*(root.split("/") if root else []), *plain[start:]])
            if tree.has(path):
                return path
    return None


def _list(tree: Tree, base: str, listed: str, problems: Problems) -> Iterator[str]:
    text = (tree.root / listed).read_bytes().decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        found = tree.find_image(name, parent(listed), base)
        if found is None:
            problems.note("image missing", f"{listed} line {number}: {tree.missing(name)}")
            continue
        if found[1] == "tail" and name.startswith("/"):
            problems.note(
                "path of another machine, matched by its end",
                f"{listed} line {number}: {name!r} taken as {found[0]}",
            )
        yield found[0]


def _names(tree: Tree, table: dict[str, Any], notes: list[str]) -> list[str] | None:
    """Class names by index; None if nothing says them."""
    given = table.get("names")
    if isinstance(given, str):
        path = _listed_file(tree, "", given.replace("\\", "/"))
        if path is None:
            raise DataError(f"{tree.place}: the file of class names {given} is not there")
        return _lines(tree, path)
    if isinstance(given, list):
        return [str(name) for name in given]
    if isinstance(given, dict):
        numbers = {as_number(str(key)): str(name) for key, name in given.items()}
        if None in numbers or any(
            n != int(n) or not 0 <= n < _MOST_CLASSES for n in numbers if n is not None
        ):
            raise DataError(f"{tree.place}: names must be numbered from 0, got {list(given)[:5]}")
        top = int(max((n for n in numbers if n is not None), default=-1))
        return [numbers.get(float(at), f"class {at}") for at in range(top + 1)]
    if given is not None:
        raise DataError(f"{tree.place}: names should be a list or a table, got {given!r:.60}")
    for path in tree.files("txt", "names", "labels"):
        if path.rpartition("/")[2].lower() in _NAME_FILES:
            return _lines(tree, path)
    notes.append("nothing says what classes are called: they are named by their number")
    return None


def _lines(tree: Tree, path: str) -> list[str]:
    text = (tree.root / path).read_bytes().decode("utf-8-sig", "replace")
    return [line.strip() for line in text.rstrip().splitlines()]


class _Reader:
    """Label files to boxes."""

    def __init__(self, tree: Tree, names: list[str] | None, pose: bool) -> None:
        self._tree = tree
        self._known = None if names is None else _unique(names)
        self.classes = Classes(list(self._known or ()), closed=True)
        self._pose = pose
        self._plain = self._quads = self._outlines = self._tilted = 0
        self._first_quad = ""

    def file(self, image: str) -> str:
        """The label file of an image: its path from the root, whether it exists or not."""
        name = f"{stem(image)}.txt"
        folder = _twin(parent(image), "images", "labels")
        for place in dict.fromkeys((folder, parent(image))):
            path = f"{place}/{name}" if place else name
            if self._tree.has(path):
                return path
        return f"{folder}/{name}" if folder else name

    def read(self, image: str, problems: Problems) -> Labelled | None:
        size = size_of(self._tree, image, problems)
        if size is None:
            return None
        path = self.file(image)
        if not self._tree.has(path):
            problems.note("no label file, taken as without objects", image)
            return Labelled(*size)
        try:
            # plain `open`: this is done for every image
            with open(f"{self._tree.root}/{path}", "rb", buffering=0) as file:  # noqa: PTH123
                raw = file.read()
            text = raw.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            problems.note("label file not readable", f"{path}: {error}")
            return None
        boxes: list[Box] = []
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            if words:
                box = self._plain_row(words, number, size)
                box = box or self._row(words, number, size, path, problems)
                if box is not None:
                    boxes.append(box)
        return Labelled(*size, boxes)

    def _plain_row(self, words: list[str], number: int, size: tuple[int, int]) -> Box | None:
        """A row as nearly all are, without looking for what may be wrong with it; else None."""
        if len(words) != 5 or not words[0].isdecimal():
            return None
        index = int(words[0])
        if index >= len(self.classes.names):
            return None
        try:
            x, y, w, h = float(words[1]), float(words[2]), float(words[3]), float(words[4])
        except ValueError:
            return None
        if not (0 <= x <= 1 and 0 <= y <= 1 and 0 <= w <= 1 and 0 <= h <= 1):
            return None
        self._plain += 1
        width, height = size
        return (
            index,
            ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height),
            number,
            False,
        )

    def _row(
        self, words: list[str], number: int, size: tuple[int, int], path: str, problems: Problems
    ) -> Box | None:
        where = f"{path} line {number}"
        try:
            values = [float(word) for word in words]
        except ValueError:
            problems.note("row with text", f"{where}: {' '.join(words)[:60]!r}")
            return None
        position = self._class(values[0], where, problems)
        if position is None:
            return None
        n = len(values)
        if n == 5 or (self._pose and n > 5):
            self._plain += 1
            x, y, w, h = values[1:5]
        elif n >= 7 and n % 2:
            x, y, w, h = self._outline(values[1:], size, where)
        else:
            kind = "row too short" if n < 5 else "row of a length that is neither box nor outline"
            extra = " (a score at its end? labels have none)" if n == 6 else ""
            problems.note(kind, f"{where}: {n} numbers{extra}")
            return None
        if not max(abs(x), abs(y), abs(w), abs(h)) <= 2:
            problems.note("not in 0..1 (pixels?)", f"{where}: {' '.join(words[:5])[:60]}")
            return None
        width, height = size
        return (
            position,
            ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height),
            number,
            False,
        )

    def _class(self, value: float, where: str, problems: Problems) -> int | None:
        if not 0 <= value < _MOST_CLASSES or value != int(value):
            problems.note("class is no index", f"{where}: {value:g}")
            return None
        index = int(value)
        if self._known is None:
            names = self.classes.names
            names += [f"class {at}" for at in range(len(names), index + 1)]
            return index
        if index >= len(self._known):
            problems.note(
                "unknown class index", f"{where}: {index}, there are {len(self._known)} classes"
            )
            return None
        return index

    def _outline(
        self, points: list[float], size: tuple[int, int], where: str
    ) -> tuple[float, float, float, float]:
        xs, ys = points[0::2], points[1::2]
        if len(xs) == 4:
            self._quads += 1
            self._first_quad = self._first_quad or where
            self._tilted += _is_tilted([x * size[0] for x in xs], [y * size[1] for y in ys])
        else:
            self._outlines += 1
        low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
        return (low_x + high_x) / 2, (low_y + high_y) / 2, high_x - low_x, high_y - low_y

    def refuse_oriented(self) -> None:
        """Raise DataError if the rows of nine numbers are oriented boxes, and no outlines."""
        if self._quads and not self._outlines and (self._tilted or not self._plain):
            raise DataError(
                f"{self._tree.place} holds oriented boxes: {self._quads} rows have a class and "
                f"four corners (the first: {self._first_quad}). Students here learn upright boxes: "
                "to take the upright hull of each, write ,oriented=hull behind the path"
            )

    def notes(self) -> Iterator[str]:
        """What people should know of how rows were read."""
        if self._outlines or self._quads:
            yield f"{self._outlines + self._quads} outlines are taken as the boxes around them"


def _unique(names: list[str]) -> list[str]:
    """Names with a number where one occurs twice or is empty."""
    seen: set[str] = set()
    found = []
    for at, name in enumerate(names):
        plain = name.strip() or f"class {at}"
        unique = plain if plain not in seen else f"{plain} ({at})"
        seen.add(unique)
        found.append(unique)
    return found


def _is_tilted(xs: Sequence[float], ys: Sequence[float]) -> bool:
    """Whether four corners, in pixels, are those of a rectangle that is not upright."""
    first = math.hypot(xs[0] - xs[2], ys[0] - ys[2])
    second = math.hypot(xs[1] - xs[3], ys[1] - ys[3])
    slack = _RECTANGLE * max(first, second, 1e-9)
    middle = math.hypot(xs[0] + xs[2] - xs[1] - xs[3], ys[0] + ys[2] - ys[1] - ys[3]) / 2
    if abs(first - second) > slack or middle > slack:
        return False
    return min(abs(xs[0] - xs[1]), abs(ys[0] - ys[1])) > slack


FORM = Form(
    "yolo",
    "YOLO",
    _recognise,
    _read,
    {"oriented": "refuse (default), or hull: take the upright box around four corners"},
)
