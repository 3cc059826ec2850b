"""Where tiles lie in an image, and boxes of a tile as boxes of the image and back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from box_store.boxes import Boxes
from box_store.errors import UsageError

# of a window's side: a box that ends nearer than this to a cut may go on beyond it
_CUT_MARGIN = 0.01
_SMALLEST_TILE = 32
_LARGEST_OVERLAP = 0.9


@dataclass(frozen=True)
class Window:
    """Pixels left:right, top:bottom of an image of width x height pixels."""

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def is_whole(self) -> bool:
        """Whether it leaves nothing of the image out."""
        size = (self.right - self.left, self.bottom - self.top)
        return size == (self.width, self.height)

    def show(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3], the image -> uint8 [h, w, 3], its part."""
        return np.ascontiguousarray(image[self.top : self.bottom, self.left : self.right])

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes in pixels of the window -> boxes in the image; what a cut may have truncated
        is left out.
        """
        return self.scaled_to_image(boxes, boxes.width, boxes.height)

    def scaled_to_image(self, boxes: Boxes, shown_width: int, shown_height: int) -> Boxes:
        """As `to_image`, the window having been scaled to so many pixels."""
        across = (self.right - self.left) / shown_width
        down = (self.bottom - self.top) / shown_height
        xyxy = boxes.boxes_xyxy * np.array([across, down, across, down], np.float32)
        xyxy += np.array([self.left, self.top, self.left, self.top], np.float32)
        x_margin = _CUT_MARGIN * (self.right - self.left)
        y_margin = _CUT_MARGIN * (self.bottom - self.top)
        whole = np.ones(len(boxes), bool)
        if self.left > 0:
            whole &= xyxy[:, 0] > self.left + x_margin
        if self.top > 0:
            whole &= xyxy[:, 1] > self.top + y_margin
        if self.right < self.width:
            whole &= xyxy[:, 2] < self.right - x_margin
        if self.bottom < self.height:
            whole &= xyxy[:, 3] < self.bottom - y_margin
        kept = Boxes(xyxy, boxes.scores, boxes.class_ids, self.width, self.height)
        return kept.take(np.flatnonzero(whole)).clipped()

    def from_image(self, boxes: Boxes) -> Boxes:
        """Boxes of the image -> what of them lies in the window, in pixels of the window."""
        xyxy = boxes.boxes_xyxy - np.array([self.left, self.top] * 2, np.float32)
        size = (self.right - self.left, self.bottom - self.top)
        return Boxes(xyxy, boxes.scores, boxes.class_ids, *size).clipped()


@dataclass(frozen=True)
class Tiling:
    """Squares of `side` pixels that cover an image, neighbours sharing at least `overlap` of a
    side. An object no longer than that lies whole in some tile.

    Raises UsageError for sides below 32 pixels and overlaps that are not 0..0.9.
    """

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < _SMALLEST_TILE:
            raise UsageError(f"a tile has at least {_SMALLEST_TILE} pixels a side, got {self.side}")
        if not 0 <= self.overlap <= _LARGEST_OVERLAP:
            raise UsageError(
                f"the overlap of tiles is a part of their side from 0 to {_LARGEST_OVERLAP:g}, got "
                f"{self.overlap:g}"
            )

    def windows(self, width: int, height: int) -> list[Window]:
        """The tiles of an image, row by row, evenly spread; where a side of the image is shorter
        than a tile's the tiles are as long as that.
        """
        return [
            Window(width, height, left, top, right, bottom)
            for top, bottom in self._along(height)
            for left, right in self._along(width)
        ]

    def _along(self, side: int) -> Iterator[tuple[int, int]]:
        length = min(side, self.side)
        step = max(1, int(self.side * (1 - self.overlap)))
        return spread(side, length, 1 - (length - side) // step)


def spread(side: int, length: int, n: int) -> Iterator[tuple[int, int]]:
    """First pixel and the one after the last of `n` stretches of `length`, evenly from one end of
    `side` to the other.
    """
    for at in range(n):
        start = 0 if n == 1 else round((side - length) * at / (n - 1))
        yield start, start + length
