"""Several views of an image at test time: mirrored, with objects smaller and larger, and in tiles.

Every scaled view is as large as the image, and its objects appear `scale` times as large: a teacher
resizes whatever it gets, so that merely enlarging an image would show it nothing new. Below 1 the
shrunken image lies at the top left of a grey canvas; above 1 the view is cut into overlapping
windows, each enlarged. A tile is shown as it is: the smaller it is beside the image, the larger its
objects appear. Boxes that a cut may have truncated are dropped (`box_store.tiling`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import floor

import numpy as np

from box_store.boxes import Boxes
from box_store.fuse import fuse
from box_store.tiling.looking import Look, seen_through, tiles_beside_whole
from box_store.tiling.tiles import Window, spread
from teacher_infer.adapters.protocol import Teacher, ViewSpec
from teacher_infer.adapters.resize import resize

_GREY = 114


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
        """See `Teacher.predict`. The teacher is shown one view of all images at a time, and no
        more pictures at once than there are images.
        """
        if not images:
            return []
        seen: list[dict[str, Boxes]] = [{} for _ in images]
        for name, looks in self._views(images):
            found = seen_through(self._teacher.predict, images, looks, self._spec.merge_iou)
            for boxes, of_image in zip(found, seen, strict=True):
                if boxes is not None:
                    of_image[name] = boxes
        return [
            fuse(views, self._spec.fusion()).above(self._score_floor).sorted().top_k(self._top_k)
            for views in seen
        ]

    def _views(self, images: list[np.ndarray]) -> Iterator[tuple[str, list[list[Look]]]]:
        """Names of views, and through what each image is looked at in them."""
        spec = self._spec
        scales: list[float | None] = [*spec.scales] if spec.whole else []
        if spec.tiling is not None:
            scales.append(None)
        for scale, mirrored in product(scales, (False, True)[: 1 + spec.flip]):
            name = "tiles" if scale is None else f"{scale:g}"
            looks = [self._looks(image, scale) for image in images]
            if mirrored:
                looks: list[list[Look]] = [[_Mirrored(look) for look in each] for each in looks]
            yield f"{name}{' mirrored' * mirrored}", looks

    def _looks(self, image: np.ndarray, scale: float | None) -> list[Look]:
        """Through what an image is looked at in a view of that scale; None: in tiles."""
        if scale is not None:
            return [_scaled_window(image, scale, at) for at in range(_n_windows(scale) ** 2)]
        if self._spec.tiling is None:
            return []
        if self._spec.whole and 1.0 in self._spec.scales:
            return [*tiles_beside_whole(self._spec.tiling, image)]
        return [*self._spec.tiling.windows(image.shape[1], image.shape[0])]


@dataclass(frozen=True)
class _Scaled:
    """A window scaled to shown_width x shown_height, on a canvas of the size of its image."""

    window: Window
    shown_width: int
    shown_height: int

    def show(self, image: np.ndarray) -> np.ndarray:
        scaled = resize(self.window.show(image), self.shown_width, self.shown_height)
        if scaled.shape == image.shape:
            return np.ascontiguousarray(scaled)
        canvas = np.full_like(image, _GREY)
        canvas[: self.shown_height, : self.shown_width] = scaled
        return canvas

    def to_image(self, boxes: Boxes) -> Boxes:
        # what was found on the grey of the canvas has no area inside the image
        return self.window.scaled_to_image(boxes, self.shown_width, self.shown_height)


@dataclass(frozen=True)
class _Mirrored:
    """A look at the mirrored image."""

    look: Look

    def show(self, image: np.ndarray) -> np.ndarray:
        return self.look.show(image[:, ::-1])

    def to_image(self, boxes: Boxes) -> Boxes:
        found = self.look.to_image(boxes)
        xyxy = found.boxes_xyxy[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
        xyxy[:, [0, 2]] += found.width
        return Boxes(xyxy, found.scores, found.class_ids, found.width, found.height)


def _n_windows(scale: float) -> int:
    """Windows along each side of an image."""
    return 1 if scale <= 1 else floor(scale) + 1


def _scaled_window(image: np.ndarray, scale: float, place: int) -> _Scaled:
    """Window number `place` of a view, row by row."""
    height, width = image.shape[:2]
    n = _n_windows(scale)
    (top, bottom), (left, right) = (
        [*spread(side, _cut(side, scale), n)][at]
        for side, at in ((height, place // n), (width, place % n))
    )
    window = Window(width, height, left, top, right, bottom)
    if scale > 1:
        return _Scaled(window, width, height)
    return _Scaled(window, max(1, round(width * scale)), max(1, round(height * scale)))


def _cut(side: int, scale: float) -> int:
    """How much of a side fills it when enlarged."""
    return side if scale <= 1 else min(side, max(1, round(side / scale)))
