"""Augmentation: the image and all its box sets go through each step together.

The steps are DETR's (facebookresearch/detr, `datasets/coco.py`): a horizontal flip, then either a
resize to one of several short sides, or a resize, a random crop and a resize. Random numbers come
from the generator that is passed in and from nowhere else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from student_train.config import AugmentConfig
from student_train.data.strong import SMALLEST_CROP, strengthen


@dataclass(frozen=True)
class Scene:
    """An image and all boxes in it, whoever drew them."""

    image: Tensor
    """uint8 [3, H, W]"""
    boxes_xyxy: Tensor
    """[N, 4], corners in pixels of `image`"""
    rows: Tensor
    """LongTensor [N], which of the boxes that there were at the start these are"""
    is_mosaic: bool = False
    """of a scene as stored: it is of several images, and is neither zoomed nor cropped"""

    @classmethod
    def start(cls, image: Tensor, boxes_xyxy: Tensor) -> "Scene":
        """A scene as stored; boxes are cut to the image, those without area dropped."""
        rows = torch.arange(len(boxes_xyxy))
        return cls(image, boxes_xyxy, rows)._cut()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    def move(self, step: Callable[[Tensor], Tensor]) -> "Scene":
        """Apply a torchvision v2 functional to the image and to the boxes."""
        framed = BoundingBoxes(
            self.boxes_xyxy,  # type: ignore[call-overload]
            format=BoundingBoxFormat.XYXY,
            canvas_size=self.size,
        )
        return self.replaced(step(self.image), step(framed).as_subclass(Tensor))

    def replaced(self, image: Tensor, boxes_xyxy: Tensor) -> "Scene":
        """The same boxes somewhere else; cut to the image, those without area dropped."""
        return Scene(image, boxes_xyxy, self.rows)._cut()

    def _cut(self) -> "Scene":
        height, width = self.size
        corners = self.boxes_xyxy.view(-1, 2, 2)
        boxes = corners.clamp(min=0).minimum(corners.new_tensor([width, height])).view(-1, 4)
        keep = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Scene(self.image, boxes[keep], self.rows[keep])


class Transform(Protocol):
    """From a scene as stored to a scene for the student."""

    def __call__(
        self,
        scene: Scene,
        generator: torch.Generator,
        shared: torch.Generator | None = None,
        epoch: int = 0,
    ) -> Scene:
        """`generator` is the image's own; `shared` starts alike for all images of a step; `epoch`
        counts from 0.
        """
        ...

    def needs(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that a scene of `size` must have at least for nothing to be enlarged that
        would not be otherwise.
        """
        ...


class TrainTransform:
    """DETR's augmentation, with its lengths and probabilities from a config; before it, perhaps,
    RT-DETR's strong one, as long as that lasts; the last resize may squash to a square.
    """

    def __init__(self, config: AugmentConfig):
        self.config = config

    def __call__(
        self,
        scene: Scene,
        generator: torch.Generator,
        shared: torch.Generator | None = None,
        epoch: int = 0,
    ) -> Scene:
        config = self.config
        strong = config.strong_epochs is None or epoch < config.strong_epochs
        if strong and max(config.photometric, config.zoom_out, config.iou_crop) > 0:
            how = replace(config, zoom_out=0.0, iou_crop=0.0) if scene.is_mosaic else config
            scene = scene.replaced(*strengthen(scene.image, scene.boxes_xyxy, how, generator))
        if _uniform(generator) < config.flip:
            scene = scene.move(F.horizontal_flip)
        if _uniform(generator) < config.crop:
            scene = resize(scene, _choice(config.crop_resize, generator))
            scene = random_crop(scene, *config.crop_sides, generator)
        if config.squares and not strong and config.eval_square is not None:
            return squash(scene, config.eval_square)
        if config.squares:
            drawn_by = shared if config.same_square and shared is not None else generator
            return squash(scene, _choice(config.squares, drawn_by))
        return resize(scene, _choice(config.short_sides, generator), config.long_side)

    def needs(self, size: tuple[int, int]) -> tuple[int, int]:
        """The largest that may be drawn; more where a part of a scene may be cut out before."""
        config = self.config
        sides = config.squares + ((config.eval_square,) if config.eval_square is not None else ())
        wanted = (
            [(max(sides), max(sides))]
            if config.squares
            else [resized_size(size, max(config.short_sides), config.long_side)]
        )
        if config.crop > 0:
            wanted.append(resized_size(size, max(config.crop_resize)))
        part = SMALLEST_CROP if config.iou_crop > 0 else 1.0
        height, width = (math.ceil(max(lengths) / part) for lengths in zip(*wanted, strict=True))
        return height, width


class EvalTransform:
    """One resize, nothing random."""

    def __init__(self, config: AugmentConfig):
        self.config = config

    def __call__(
        self,
        scene: Scene,
        generator: torch.Generator,
        shared: torch.Generator | None = None,
        epoch: int = 0,
    ) -> Scene:
        if self.config.eval_square is not None:
            return squash(scene, self.config.eval_square)
        return resize(scene, self.config.eval_short_side, self.config.eval_long_side)

    def needs(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size that it will have."""
        if self.config.eval_square is not None:
            return self.config.eval_square, self.config.eval_square
        return resized_size(size, self.config.eval_short_side, self.config.eval_long_side)


class AsStored:
    """Nothing, for students that resize by themselves."""

    def __call__(
        self,
        scene: Scene,
        generator: torch.Generator,
        shared: torch.Generator | None = None,
        epoch: int = 0,
    ) -> Scene:
        return scene

    def needs(self, size: tuple[int, int]) -> tuple[int, int]:
        """Every pixel."""
        return size


def resize(scene: Scene, short_side: int, long_side: int | None = None) -> Scene:
    """Scale to a short side, or as far as the long side allows, keeping the aspect ratio."""
    return _resized(scene, *resized_size(scene.size, short_side, long_side))


def squash(scene: Scene, side: int) -> Scene:
    """Scale to a square, whatever the aspect ratio."""
    return _resized(scene, side, side)


def _resized(scene: Scene, height: int, width: int) -> Scene:
    return scene.move(
        lambda it: F.resize(
            it, [height, width], interpolation=v2.InterpolationMode.BILINEAR, antialias=True
        )
    )


def resized_size(
    size: tuple[int, int], short_side: int, long_side: int | None = None
) -> tuple[int, int]:
    """(height, width) after `resize`, rounded as DETR rounds it; never below 1 px."""
    height, width = size
    low, high = min(size), max(size)
    if long_side and high / low * short_side > long_side:
        short_side = max(1, round(long_side * low / high))
    if height <= width:
        return short_side, max(1, int(short_side * width / height))
    return max(1, int(short_side * height / width)), short_side


def random_crop(scene: Scene, smallest: int, largest: int, generator: torch.Generator) -> Scene:
    """Cut out a window whose sides are drawn from smallest..largest (at most the image's)."""
    sides = []
    for side in scene.size:
        low, high = min(smallest, side), min(largest, side)
        sides.append(_integer(low, high, generator))
    (height, width), (full_height, full_width) = sides, scene.size
    top = _integer(0, full_height - height, generator)
    left = _integer(0, full_width - width, generator)
    return scene.move(lambda it: F.crop(it, top, left, height, width))


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """Uniform in low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _choice(options: tuple[int, ...], generator: torch.Generator) -> int:
    return options[_integer(0, len(options) - 1, generator)]
