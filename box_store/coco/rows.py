"""Images and boxes as somebody's file has them, and the one place where they are checked.

Whatever the form of the file, what is dropped, cut and counted is decided here, so that labelling,
training, evaluation and SQL speak of the same objects.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from box_store.coco.annotation_table import AnnotationTable, pack_names

NOT_A_BOX = "not a box"
NO_AREA = "no area"
OUTSIDE = "outside its image"
CUT = "cut to its image"
CORNERS = "boxes look like two corners, not like a corner and an extent"
PARTS = "boxes look like parts of 1, not like pixels"
GUESS = "guess of a machine that nobody confirmed, left out"

# COCO writes two decimals, so x + width may pass the border by a hundredth: not worth a report
_ROUNDING_PX = 0.05
_EXAMPLES = 3
# of so many boxes something can be said; so many leave their images, or do what is suspected
_FEW, _MANY_LEAVE, _NEARLY_ALL = 10, 0.2, 0.98
_PART = 1.001
_NAN = float("nan")

Box = tuple[int, tuple[float, float, float, float], int, bool]
Examples = Mapping[str, tuple[str, ...]]


class Problems:
    """How many rows were dropped or repaired, by kind, and the first few of each in words."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def note(self, kind: str, text: str) -> None:
        """One more of a kind."""
        self.counts[kind] += 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(text)

    def add(self, other: "Problems") -> None:
        """All that another one noted."""
        for kind, count in other.counts.items():
            texts = other._examples.get(kind, [])
            for text in texts:
                self.note(kind, text)
            self.counts[kind] += count - len(texts)

    @property
    def examples(self) -> Examples:
        """The first few of each kind."""
        return {kind: tuple(texts) for kind, texts in self._examples.items()}


class Rows:
    """M images and N boxes, in a few flat arrays; `table` checks them.

    Boxes are x, y of the top left corner, width, height in pixels, of any value. Every box has a
    number by which its form finds it again for a message: an annotation id, a line.
    """

    def __init__(self) -> None:
        self.problems = Problems()
        self._names = bytearray()
        self._name_ends = array("q", [0])
        self._ids, self._widths, self._heights = array("q"), array("q"), array("q")
        self._unlabelled = array("b")
        self._owners, self._categories, self._numbers = array("q"), array("q"), array("q")
        self._boxes, self._areas, self._crowd = array("d"), array("d"), array("b")

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def n_boxes(self) -> int:
        """Boxes so far."""
        return len(self._owners)

    def add_image(
        self, image_id: int, name: str, width: int, height: int, *, unlabelled: bool = False
    ) -> int:
        """Add an image; its index. Its name and size are checked by whoever reads it.

        unlabelled: nobody has said what is in it.
        """
        self._unlabelled.append(unlabelled)
        self._ids.append(image_id)
        self._names += name.encode("utf-8", "surrogatepass")
        self._name_ends.append(len(self._names))
        self._widths.append(width)
        self._heights.append(height)
        return len(self._ids) - 1

    def mark_unlabelled(self, image: int) -> None:
        """Nobody has said what is in the image with that index, or not all of it."""
        self._unlabelled[image] = True

    def add_images(
        self,
        image_ids: NDArray[np.int64],
        names: Sequence[str],
        sides: NDArray[np.int64],
        unlabelled: NDArray[np.bool_],
    ) -> None:
        """Add K images; sides: int64 [K, 2], widths and heights. The rest as in `add_image`."""
        ends, encoded = pack_names(names)
        self._name_ends.frombytes((len(self._names) + ends[1:]).tobytes())
        self._names += encoded.tobytes()
        self._unlabelled.frombytes(unlabelled.astype(np.int8).tobytes())
        self._ids.frombytes(image_ids.tobytes())
        self._widths.frombytes(sides[:, 0].tobytes())
        self._heights.frombytes(sides[:, 1].tobytes())

    def add_box(
        self,
        image: int,
        category_id: int,
        xywh: tuple[float, float, float, float],
        number: int,
        *,
        crowd: bool = False,
        area: float = _NAN,
    ) -> None:
        """Add a box of the image with that index; area: annotated, else that of the box."""
        self._owners.append(image)
        self._categories.append(category_id)
        self._boxes.extend(xywh)
        self._numbers.append(number)
        self._crowd.append(crowd)
        self._areas.append(area)

    def add_boxes(self, image: int, boxes: Sequence[Box]) -> None:
        """Add the boxes of an image: class, x, y, width, height in pixels, number, crowd."""
        self._owners.extend([image] * len(boxes))
        self._categories.extend([box[0] for box in boxes])
        for box in boxes:
            self._boxes.extend(box[1])
        self._numbers.extend([box[2] for box in boxes])
        self._crowd.extend([box[3] for box in boxes])
        self._areas.extend([_NAN] * len(boxes))

    def add_columns(
        self,
        images: NDArray[np.int64],
        category_ids: NDArray[np.int64],
        xywh: NDArray[np.float64],
        numbers: NDArray[np.int64],
        crowd: NDArray[np.int64],
        areas: NDArray[np.float64],
    ) -> None:
        """Add K boxes; xywh has 4 K values. The rest as in `add_box`."""
        self._owners.frombytes(images.tobytes())
        self._categories.frombytes(category_ids.tobytes())
        self._boxes.frombytes(xywh.tobytes())
        self._numbers.frombytes(numbers.tobytes())
        self._crowd.frombytes(crowd.astype(np.int8).tobytes())
        self._areas.frombytes(areas.tobytes())

    def name(self, image: int) -> str:
        """The name of the image with that index."""
        start, stop = self._name_ends[image], self._name_ends[image + 1]
        return self._names[start:stop].decode("utf-8", "surrogatepass")

    def table(
        self, describe: Callable[[int, int], str], category_ids: Sequence[int] | None = None
    ) -> AnnotationTable:
        """Check all rows, count what is wrong in `problems`, and keep what is a box.

        A box is dropped if one of its numbers is none, if it has no area, or lies outside its
        image; one that sticks out is cut. describe: names a box from its image's index and its
        number. category_ids: the boxes' categories were positions in this list.
        """
        owners = np.frombuffer(self._owners, np.int64)
        widths = np.frombuffer(self._widths, np.int64)
        heights = np.frombuffer(self._heights, np.int64)
        boxes, kept = self._checked(owners, widths, heights, describe)
        categories = np.frombuffer(self._categories, np.int64)[kept]
        if category_ids is not None:
            categories = np.asarray(category_ids, np.int64)[categories]
        areas = np.frombuffer(self._areas, np.float64)[kept]
        own = boxes[:, 2].astype(np.float64) * boxes[:, 3]
        areas = np.where((areas >= 0) & (areas <= np.finfo(np.float32).max), areas, own)
        # stable: boxes of an image stay in the order of the file
        order = np.argsort(owners[kept], kind="stable")
        counts = np.bincount(owners[kept], minlength=len(self))
        return AnnotationTable(
            np.frombuffer(self._ids, np.int64),
            widths.astype(np.int32),
            heights.astype(np.int32),
            np.frombuffer(self._name_ends, np.int64),
            np.frombuffer(bytes(self._names), np.uint8),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes[order],
            categories[order].astype(np.int32),
            np.frombuffer(self._crowd, np.int8)[kept][order].astype(bool),
            areas[order].astype(np.float32),
            np.frombuffer(self._unlabelled, np.int8).astype(bool),
        )

    def _suspect(
        self, raw: NDArray[np.float64], sides: NDArray[np.int64], leaves: NDArray[np.bool_]
    ) -> None:
        """Note what boxes seem to be, where they are hardly meant as corner and extent in pixels.

        raw: float64 [K, 4]. sides: width and height of their images, [K, 2]. leaves: bool [K],
        whether they leave them.
        """
        if len(raw) < _FEW:
            return
        fits = ((raw[:, 2:] > raw[:, :2]) & (raw[:, 2:] <= sides + 1)).all(1)
        if leaves.mean() >= _MANY_LEAVE and fits.mean() >= _NEARLY_ALL:
            self.problems.note(
                CORNERS, f"{int(leaves.sum())} of {len(raw)} leave their images otherwise"
            )
        ends = raw[:, :2] + raw[:, 2:]
        if (ends <= _PART).mean() >= _NEARLY_ALL and sides.min() > 2:
            self.problems.note(PARTS, f"{int((ends <= _PART).all(1).sum())} of {len(raw)} end at 1")

    def _checked(
        self,
        owners: NDArray[np.int64],
        widths: NDArray[np.int64],
        heights: NDArray[np.int64],
        describe: Callable[[int, int], str],
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Boxes cut to their images, float32 [K, 4], and which rows they are, [K]."""
        raw = np.frombuffer(self._boxes, np.float64).reshape(-1, 4)

        def note(kind: str, wrong: ArrayLike) -> None:
            found = np.flatnonzero(np.asarray(wrong))
            for row in found[:_EXAMPLES]:
                where = describe(int(owners[row]), self._numbers[row])
                box = ", ".join(f"{value:g}" for value in raw[row])
                self.problems.note(kind, f"{where}: [{box}]")
            extra = len(found) - _EXAMPLES
            if extra > 0:
                self.problems.counts[kind] += extra

        finite = np.isfinite(raw).all(1)
        note(NOT_A_BOX, ~finite)
        positive = (raw[:, 2:] > 0).all(1)
        note(NO_AREA, finite & ~positive)
        sides = np.stack([widths[owners], heights[owners]], 1)
        with np.errstate(invalid="ignore", over="ignore"):
            low = np.clip(raw[:, :2], 0, sides)
            ends = raw[:, :2] + raw[:, 2:]
            high = np.clip(ends, 0, sides)
            inside = (high > low).all(1)
            note(OUTSIDE, finite & positive & ~inside)
            kept = finite & positive & inside
            cut = np.maximum(low - raw[:, :2], ends - high).max(1, initial=0) > _ROUNDING_PX
            note(CUT, kept & cut)
            self._suspect(raw[finite], sides[finite], (~inside | cut)[finite])
        rows = np.flatnonzero(kept)
        boxes = _rounded(low[rows], high[rows], sides[rows])
        # what rounding left nothing of: narrower than a millionth of a pixel, at the border
        flat = ~(boxes[:, 2:] > 0).all(1)
        note(NO_AREA, np.isin(np.arange(len(raw)), rows[flat]))
        return boxes[~flat], rows[~flat]


def _rounded(
    low: NDArray[np.float64], high: NDArray[np.float64], sides: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Corner and extent as float32, the extent so short that their sum stays inside the image.

    Rounding may lift the sum a little; reading what was written would then cut the box once more.
    """
    corner, extent = low.astype(np.float32), (high - low).astype(np.float32)
    room = sides - corner.astype(np.float64)
    largest = room.astype(np.float32)
    largest = np.where(largest > room, np.nextafter(largest, np.float32(0)), largest)
    return np.concatenate([corner, np.minimum(extent, largest)], 1).astype(np.float32)
