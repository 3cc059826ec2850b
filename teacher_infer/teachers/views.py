"""Several views of an image at test time: mirrored, and with objects smaller and larger.

Every view is as large as the image, and its objects appear `scale` times as large: a teacher
resizes whatever it gets, so that merely enlarging an image would show it nothing new. Below 1 the
shrunken image lies at the top left of a grey canvas; above 1 the view is cut into overlapping
windows, each enlarged, and boxes that a cut may have truncated are dropped.
"""

from dataclasses import dataclass
from itertools import product
from math import floor

import numpy as np

from box_store.boxes import Boxes
from box_store.fuse import fuse
from teacher_infer.adapters.protocol import Teacher, ViewSpec
from teacher_infer.adapters.resize import resize

_GREY = 114
# of a window's side: a box that ends nearer than this to a cut may go on beyond it
_CUT_MARGIN = 0.01


class ViewingTeacher:
    """A teacher that looks at several views of each image; a `Teacher` itself."""

    def __init__(self, teacher: Teacher, spec: ViewSpec, score_floor: float, top_k: int) -> None:
        self._teacher = teacher
        self._spec = spec
        self._score_floor = score_floor
        self._top_k = top_k
        self.class_names = teacher.class_names
        self.licence = teacher.licence
        self.versions = teacher.versions
        self.runtime = teacher.runtime

    def predict(self, images: list[np.ndarray]) -> list[Boxes]:
        """See `Teacher.predict`. The teacher is shown one view of all images at a time."""
        seen: list[dict[str, Boxes]] = [{} for _ in images]
        for scale, mirrored in product(self._spec.scales, (False, True)[: 1 + self._spec.flip]):
            found = self._view(images, scale, mirrored)
            for boxes, of_image in zip(found, seen, strict=True):
                of_image[f"{scale:g}{' mirrored' * mirrored}"] = boxes
        return [
            fuse(views, self._spec.fusion()).above(self._score_floor).sorted().top_k(self._top_k)
            for views in seen
        ]

    def _view(self, images: list[np.ndarray], scale: float, mirrored: bool) -> list[Boxes]:
        """Boxes of each image, in its own pixels, from one view of it."""
        parts: list[list[Boxes]] = [[] for _ in images]
        for place in range(_n_windows(scale) ** 2):
            windows = [_window(image, scale, place) for image in images]
            shown = [
                window.show(image[:, ::-1] if mirrored else image)
                for window, image in zip(windows, images, strict=True)
            ]
            for part, window, boxes in zip(
                parts, windows, self._teacher.predict(shown), strict=True
            ):
                found = window.to_image(boxes)
                part.append(_mirror(found) if mirrored else found)
        return [self._joined(part) for part in parts]

    def _joined(self, parts: list[Boxes]) -> Boxes:
        """The windows of one view as one set: where they overlap, objects are found twice."""
        if len(parts) == 1:
            return parts[0]
        everything = Boxes(
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.class_ids for part in parts]),
            parts[0].width,
            parts[0].height,
        )
        return everything.sorted().nms(self._spec.merge_iou)


@dataclass(frozen=True)
class _Window:
    """Pixels left:right, top:bottom of an image of width x height, shown on a canvas of that size.

    shown_width, shown_height: what they are scaled to, canvas pixels.
    """

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    shown_width: int
    shown_height: int

    def show(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [H, W, 3]."""
        cut = image[self.top : self.bottom, self.left : self.right]
        scaled = resize(cut, self.shown_width, self.shown_height)
        if scaled.shape == image.shape:
            return np.ascontiguousarray(scaled)
        canvas = np.full_like(image, _GREY)
        canvas[: self.shown_height, : self.shown_width] = scaled
        return canvas

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes on the canvas -> boxes in the image, without what a cut may have truncated."""
        across = (self.right - self.left) / self.shown_width
        down = (self.bottom - self.top) / self.shown_height
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
        # what was found on the grey of the canvas has no area inside the image
        return kept.take(np.flatnonzero(whole)).clipped()


def _n_windows(scale: float) -> int:
    """Windows along each side of an image."""
    return 1 if scale <= 1 else floor(scale) + 1


def _window(image: np.ndarray, scale: float, place: int) -> _Window:
    """Window number `place` of a view, row by row."""
    height, width = image.shape[:2]
    n = _n_windows(scale)
    (top, bottom), (left, right) = (
        _span(side, scale, at, n) for side, at in ((height, place // n), (width, place % n))
    )
    shown = (width, height) if scale > 1 else (_scaled(width, scale), _scaled(height, scale))
    return _Window(width, height, left, top, right, bottom, *shown)


def _span(side: int, scale: float, at: int, n: int) -> tuple[int, int]:
    length = side if scale <= 1 else min(side, max(1, round(side / scale)))
    start = 0 if n == 1 else round((side - length) * at / (n - 1))
    return start, start + length


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _mirror(boxes: Boxes) -> Boxes:
    """Boxes of the mirrored image -> boxes of the image."""
    xyxy = boxes.boxes_xyxy[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
    xyxy[:, [0, 2]] += boxes.width
    return Boxes(xyxy, boxes.scores, boxes.class_ids, boxes.width, boxes.height)
