"""What an adapter is asked for and what it supplies: `AdapterSpec` in, a `Detector` out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from box_store.boxes import Boxes
from box_store.errors import TeachDetrError, UsageError
from box_store.fuse import FusionConfig
from box_store.tiling.tiles import Tiling

NO_NMS = "none"
"""asks for no NMS, where None asks for the model's own"""

# how large objects appear, at most and at least
_SCALES = (0.25, 4.0)


@dataclass(frozen=True)
class ViewSpec:
    """Which views, and how their boxes become one set.

    flip: each view also mirrored. scales: how large objects appear. merge: `nms` keeps the best of
    boxes of a class that overlap by more than `merge_iou`, `soft_nms` lowers the others' scores,
    `wbf` averages them (see `box_store.fuse`). tile, overlap: one more view, cut into tiles of so
    many pixels (see `box_store.tiling`). whole: whether the whole image is a view beside them.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    merge: Literal["nms", "soft_nms", "wbf"] = "nms"
    merge_iou: float = 0.6
    tile: int | None = None
    overlap: float = Tiling.overlap
    whole: bool = True

    def __post_init__(self) -> None:
        low, high = _SCALES
        ascending = all(a < b for a, b in pairwise(self.scales))
        if not (self.scales and ascending and low <= self.scales[0] and self.scales[-1] <= high):
            raise UsageError(
                f"scales are ascending numbers from {low:g} to {high:g}, got "
                f"{', '.join(f'{scale:g}' for scale in self.scales) or 'none'}"
            )
        if not self.whole and (self.tile is None or self.scales != (1.0,)):
            raise UsageError(
                "whole=false shows tiles alone: it needs tile=PIXELS, and goes without scales, "
                "which are of the whole image"
            )
        # refuse methods, overlaps and tiles that there are not
        self.fusion()
        _ = self.tiling

    def __bool__(self) -> bool:
        """Whether there is any view but the image itself."""
        return self.flip or self.scales != (1.0,) or self.tile is not None

    @property
    def tiling(self) -> Tiling | None:
        """Where the tiles lie; None where there are none."""
        return None if self.tile is None else Tiling(self.tile, self.overlap)

    def fusion(self) -> FusionConfig:
        """How the views' boxes are merged."""
        return FusionConfig(self.merge, self.merge_iou, quota=False)

    def options(self) -> dict[str, object]:
        """What the teacher's record says of the views: nothing where there are none."""
        if not self:
            return {}
        return {
            "flip": self.flip,
            "scales": list(self.scales),
            "merge": self.merge,
            "merge_iou": self.merge_iou,
        } | self._tile_options()

    def _tile_options(self) -> dict[str, object]:
        # records of views without tiles stay what they were
        if self.tile is None:
            return {}
        return {"tile": self.tile, "overlap": self.overlap, "whole": self.whole}


class AdapterError(TeachDetrError):
    """A teacher can't be loaded or misbehaves; the message says what to do."""


class Misread(AdapterError):
    """What a teacher says can't be meant as it is read: no image is to blame, and none of its boxes
    can be kept."""


class MissingLibrary(AdapterError):
    """The adapter's framework isn't installed, or a system library that it needs isn't."""


class Teacher(Protocol):
    """A loaded detector, ready to predict.

    `class_names` are the teacher's own, in the order of its class indices; `licence` is SPDX-like
    ("AGPL-3.0", "unknown"); `versions` are those of the frameworks behind it; `runtime` is what
    else decides its boxes, see `Detector`.
    """

    class_names: tuple[str, ...]
    licence: str
    versions: dict[str, str]
    runtime: dict[str, str]

    def predict(self, images: list[np.ndarray]) -> list[Boxes]:
        """Boxes of each image (H x W x 3, uint8, RGB, any sizes), in pixels of that image.

        `class_ids` are indices into `class_names`. Boxes lie inside the image, are sorted by
        descending score, not below the score floor, and at most top-k many.
        """
        ...


@dataclass(frozen=True)
class AdapterSpec:
    """Which teacher to load and how to run it.

    `nms_iou`: None leaves the NMS that belongs to the model, a number asks for a class-wise NMS at
    that IoU, `NO_NMS` for none at all. `threads` bounds the CPU threads of the process. `options`
    are the adapter's own keys (`adapter_help()` lists them). `prompts` are the classes that an
    open-vocabulary model is asked for, each with the words to ask (None: its name; several texts
    stand between bars, see `texts_of`), `negatives` what it is asked for beside them and whose
    boxes are left out; models with classes of their own ignore them.
    `views`: what the teacher is shown of each image.
    """

    adapter: str
    model: str
    device: str = "cpu"
    score_floor: float = 0.05
    nms_iou: float | Literal["none"] | None = None
    top_k: int = 100
    batch_size: int = 8
    threads: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str | None] = field(default_factory=dict)
    negatives: tuple[str, ...] = ()
    views: ViewSpec = field(default_factory=ViewSpec)

    def option(self, key: str) -> str | None:
        """The value of one of the adapter's own keys, None where it wasn't given."""
        return self.options.get(key)

    def own_nms(self, default: float) -> float:
        """IoU for the NMS that a framework does itself: 1 turns it off, as no boxes overlap more.

        default: what holds where nothing was asked for.
        """
        if self.nms_iou == NO_NMS:
            return 1.0
        return default if self.nms_iou is None else self.nms_iou


_BAR = "|"


def texts_of(words: str) -> tuple[str, ...]:
    """The texts that one value asks for: `a cat|kitten` are two."""
    return tuple(text.strip() for text in words.split(_BAR))


def joined_texts(texts: Sequence[str]) -> str:
    """The same as one value. Raises UsageError for a text that holds a bar."""
    for text in texts:
        if _BAR in text:
            raise UsageError(f"the text {text!r} holds a {_BAR}, which stands between texts")
    return _BAR.join(texts)


@dataclass(frozen=True)
class Detections:
    """What a framework found in one image, unordered and unfiltered.

    boxes_xyxy: [N, 4], pixels of the image given, corners; may reach outside it. scores: [N] in
    0..1. class_ids: [N], indices into the detector's class names.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray


class Detector(Protocol):
    """What an adapter's `load` returns.

    `nms_iou` is the IoU of the NMS that its raw detections still need by default, None for those
    whose framework has done it, or which need none.

    `runtime` is what decides its boxes beside files and options, and is recorded with them: `nms`,
    the NMS that its framework does ("none", "0.5 by torchvision"), and what changes pixels or
    numbers ("dtype", "processor"), with the version of the library that does it.
    """

    class_names: tuple[str, ...]
    licence: str
    versions: dict[str, str]
    runtime: dict[str, str]

    @property
    def nms_iou(self) -> float | None:
        """See above."""
        ...

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """Raw detections of each image (H x W x 3, uint8, RGB); never called without any."""
        ...
