"""What is written, whatever the form: images with marks, and who made each mark."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.coco.annotations import CocoData
from box_store.forms.at_once import role
from box_store.places.locations import Location

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """One box: x1, y1, x2, y2 in pixels. A guess has a score and a teacher, a label neither."""

    category: str
    corners: Corners
    score: float | None = None
    teacher: str = ""
    crowd: bool = False

    @property
    def guessed(self) -> bool:
        """Whether no person made it."""
        return self.score is not None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One image with its marks; size in pixels.

    unlabelled: nobody has said what is in it. source: the name of its file, where `file_name` is
    one that was made for the form.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    marks: tuple[Mark, ...] = ()
    unlabelled: bool = False
    source: str = ""

    @property
    def guessed(self) -> bool:
        """Whether a mark is a guess."""
        return any(mark.guessed for mark in self.marks)


@dataclass(frozen=True)
class Part:
    """The sheets of one split. images: the folder of the files, None to write labels alone."""

    name: str
    images: Location | None
    sheets: Iterable[Sheet]


@dataclass
class Account:
    """What was written, and what a form had no way to say.

    lost: how many of each kind ("crowds"). missing: images that were not there, left out.
    """

    images: int = 0
    marks: int = 0
    missing: int = 0
    lost: dict[str, int] = field(default_factory=dict)

    def lose(self, kind: str, count: int = 1) -> None:
        """So many of a kind are not in what was written."""
        if count:
            self.lost[kind] = self.lost.get(kind, 0) + count


def subset(part: Part, parts: Sequence[Part]) -> str:
    """The folder of a split: empty where there is one alone, of no purpose."""
    return "" if len(parts) == 1 and role(part.name) is None else part.name


def sheets_of(coco: CocoData, which: Iterable[int] | None = None) -> Iterator[Sheet]:
    """The images of annotations: all in their order, or those that stand at the places `which`."""
    table = coco.table
    names = {item.id: item.name for item in coco.categories.items}
    for at in range(len(table)) if which is None else which:
        rows = table.rows(at)
        size = (int(table.widths[at]), int(table.heights[at]))
        marks = tuple(
            Mark(names[category], corners, crowd=crowd)
            for category, corners, crowd in zip(
                table.category_ids[rows].tolist(),
                corners_of(table.boxes_xywh[rows], size),
                table.iscrowd[rows].tolist(),
                strict=True,
            )
        )
        image_id, unlabelled = int(table.image_ids[at]), bool(table.unlabelled[at])
        yield Sheet(image_id, table.file_name(at), *size, marks, unlabelled)


def guesses_of(boxes: Boxes, teacher: str, names: dict[int, str]) -> Iterator[Mark]:
    """A teacher's boxes, best first."""
    for category, corners, score in zip(
        boxes.class_ids.tolist(), boxes.boxes_xyxy, boxes.scores.tolist(), strict=True
    ):
        x1, y1, x2, y2 = (shortest(value) for value in corners)
        yield Mark(names[category], (x1, y1, x2, y2), round(score, 5), teacher)


def corners_of(boxes_xywh: NDArray[np.float32], size: tuple[int, int]) -> Iterator[Corners]:
    """Corners that give the very same float32 corner and extent when they are read.

    As few decimals as that takes; where these would leave the image, all of them.
    """
    for x, y, width, height in boxes_xywh:
        x1, x2 = _ends(x, width, size[0])
        y1, y2 = _ends(y, height, size[1])
        yield x1, y1, x2, y2


def _ends(start: np.float32, extent: np.float32, side: int) -> tuple[float, float]:
    low, length = shortest(start), shortest(extent)
    high = round(low + length, 12)
    if high <= side and np.float32(high - low) == extent:
        return low, high
    return float(start), float(start) + float(extent)


def shortest(value: np.float32) -> float:
    """The number with fewest decimals that is this float32."""
    return float(str(value))


def number(value: float) -> str:
    """As text, whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(value)
