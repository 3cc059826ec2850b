"""The rows of YOLO label files: boxes, and outlines of which the box around them is taken."""

import math
from collections.abc import Iterator, Sequence

from box_store.coco.rows import Problems
from box_store.errors import DataError
from box_store.forms.at_once import Box, Classes, Labelled, size_of
from box_store.forms.tree import Tree
from box_store.forms.yolo_layout import label_file

MOST_CLASSES = 100_000
# corners of a drawn rectangle agree to some thousandths of its size
_RECTANGLE = 0.02


_NO_FILE = (
    "no label file, taken as without objects (,missing=unlabelled if nobody has looked)",
    "no label file, taken as not labelled",
)


class RowReader:
    """Label files to boxes.

    names: class names by index; None if nothing says them, then they are numbered as they are met.
    pose: rows have key points behind the box. unlabelled: an image without a label file is one that
    nobody has looked at, not one without objects.
    """

    def __init__(
        self, tree: Tree, names: list[str] | None, pose: bool, *, unlabelled: bool = False
    ) -> None:
        self._tree = tree
        self._known = None if names is None else _unique(names)
        self.classes = Classes(list(self._known or ()), closed=True)
        self._pose = pose
        self._unlabelled = unlabelled
        self._read = self._without = 0
        self._first_without = ""
        self._with_points = 0
        self._plain = self._quads = self._outlines = self._tilted = 0
        self._first_quad = ""

    def read(self, image: str, problems: Problems) -> Labelled | None:
        """The boxes of an image, in pixels of it; None, with a note, if it cannot be read."""
        size = size_of(self._tree, image, problems)
        if size is None:
            return None
        path = label_file(self._tree, image)
        self._read += 1
        if not self._tree.has(path):
            self._without += 1
            self._first_without = self._first_without or path
            problems.note(_NO_FILE[self._unlabelled], image)
            return Labelled(*size, unlabelled=self._unlabelled)
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
        if n == 5 or (self._pose and n > 5) or _has_points(values):
            self._plain += 1
            self._with_points += n > 5 and not self._pose
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
        if not 0 <= value < MOST_CLASSES or value != int(value):
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

    def refuse_no_labels(self) -> None:
        """Raise DataError if there is no label file at all: they lie where nobody looked."""
        if self._read and self._without == self._read:
            raise DataError(
                f"{self._tree.place}: none of {self._read} images has a label file (the first "
                f"looked for: {self._first_without}). If there are none, say what that means, "
                "behind the path: ,missing=unlabelled (nobody has looked) or ,missing=empty "
                "(nothing is in them)"
            )

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
        if self._with_points:
            yield f"{self._with_points} rows have key points behind the box: boxes alone are taken"
        if self._outlines or self._quads:
            yield f"{self._outlines + self._quads} outlines are taken as the boxes around them"


def _has_points(values: Sequence[float]) -> bool:
    """Whether a row that nothing announces is a box and key points x, y, seen: 0, 1 or 2, which is
    no coordinate of an outline.
    """
    seen = values[7::3]
    told = len(values) > 7 and (len(values) - 5) % 3 == 0 and all(v in (0, 1, 2) for v in seen)
    return told and 2 in seen


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
