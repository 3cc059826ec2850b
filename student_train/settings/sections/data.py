"""`data.*` and `augment.*`: what images a student sees, and how they are made larger or smaller."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from student_train.settings.overrides import Operational


@dataclass(frozen=True)
class DataConfig:
    """Where the images and their annotations are, and how they are read."""

    root: Operational[Path | None] = None
    """Data set of any form that `teach-detr data` knows (`--data`): COCO, YOLO, Pascal VOC, ..."""
    train_split: str = "train2017"
    """Name of the split to train on (`--train-split`)."""
    val_split: str = "val2017"
    """Name of the split to evaluate on (`--val-split`); "none" evaluates nothing."""
    train_images: Operational[Path | None] = None
    """Folder of training images, where the layout is another one."""
    train_annotations: Operational[Path | None] = None
    """COCO JSON of the training images, where the layout is another one."""
    val_images: Operational[Path | None] = None
    """Folder of evaluation images, where the layout is another one."""
    val_annotations: Operational[Path | None] = None
    """COCO JSON of the evaluation images, where the layout is another one."""
    class_space: Literal["raw", "contiguous"] = "raw"
    """raw: one logit per category id up to the largest (official COCO weights: 91); contiguous: one
    per category.
    """
    workers: Operational[int] = 4
    """Loader processes per training process; 0 loads in the training process."""
    limit: int | None = None
    """Train on the first this many images only."""
    val_limit: Operational[int | None] = None
    """Evaluate on the first this many images only."""
    aspect_groups: int = 1
    """Groups of like aspect ratio that training batches are made from, for less padding: 2 keeps
    upright and lying images apart; 1 mixes all, as the official code does.
    """
    pad_to: int = 1
    """Heights and widths of training batches are multiples of this many pixels: with 64 or 128,
    few shapes occur, which a compiled model needs.
    """

    scaled_decode: bool = False
    """Decode JPEG photos at a half, a quarter or an eighth of their size where that is still no
    smaller than the student sees them: several times faster for large photos, pixels a little
    different. Of no use with augment.tile.
    """

    def problems(self) -> Iterator[str]:
        """What makes these settings unusable, a sentence each."""
        if self.workers < 0:
            yield f"data.workers must not be negative, got {self.workers}"
        for key in ("aspect_groups", "pad_to", "limit", "val_limit"):
            value = getattr(self, key)
            if value is not None and value < 1:
                yield f"data.{key} must be at least 1, got {value}"


@dataclass(frozen=True)
class AugmentConfig:
    """DETR's augmentation: flip, then resize, or resize + crop + resize. Lengths in pixels."""

    tile: int | None = None
    """Train on a random tile of this many pixels of each photo, cut before all else (for objects
    that are small in large photos); none: on the whole photo.
    """
    flip: float = 0.5
    """Probability of a horizontal flip."""
    photometric: float = 0.0
    """Probability of each change of colours: brightness, contrast, saturation, hue, channel order
    (RT-DETR, D-FINE: 0.5).
    """
    zoom_out: float = 0.0
    """Probability of a larger canvas, up to four times, filled with black (RT-DETR, D-FINE: 0.5).
    """
    iou_crop: float = 0.0
    """Probability of a crop that keeps some box by its IoU (RT-DETR, D-FINE: 0.8)."""
    strong_epochs: int | None = None
    """Epochs after which these three are left out and squares are all eval_square; none: never."""
    mosaic: float = 0.0
    """Probability of a mosaic of four images in place of zooming out and cropping (DEIM: 0.5)."""
    mixup: float = 0.0
    """Probability that each image of a step is mixed with the one before (DEIM: 0.5)."""
    mixed_epochs: tuple[int, int] | None = None
    """Epochs from and before which there are mosaics and mixtures; none: all."""
    short_sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    """Lengths of the short side, one drawn per image."""
    long_side: int = 1333
    """Largest length of the long side."""
    crop: float = 0.5
    """Probability of the branch that resizes, crops, and resizes again."""
    crop_resize: tuple[int, ...] = (400, 500, 600)
    """Lengths of the short side before the crop."""
    crop_sides: tuple[int, int] = (384, 600)
    """Smallest and largest side of the crop."""
    squares: tuple[int, ...] = ()
    """Sides of squares that images are squashed to, one drawn per image, in place of short_sides;
    none: the aspect ratio is kept.
    """
    same_square: bool = False
    """Draw one square for all images of a step, which then has no padding."""
    eval_square: int | None = None
    """Side of the square that images are squashed to in evaluation; none: the aspect ratio is kept.
    """
    eval_short_side: int = 800
    """Length of the short side in evaluation."""
    eval_long_side: int = 1333
    """Largest length of the long side in evaluation."""

    @property
    def mosaic_side(self) -> int:
        """Side of the square that a mosaic is laid out on, in pixels."""
        return self.eval_square or max(self.squares or self.short_sides)

    @property
    def eval_size(self) -> tuple[int, int]:
        """The largest image of an evaluation, (height, width) if it is a lying one."""
        if self.eval_square is not None:
            return self.eval_square, self.eval_square
        return self.eval_short_side, self.eval_long_side

    def problems(self) -> Iterator[str]:
        """What makes these settings unusable, a sentence each."""
        if not self.short_sides:
            yield "augment.short_sides must name at least one length"
        if self.same_square and not self.squares:
            yield "augment.same_square draws one of augment.squares, and there is none"
        if self.tile is not None and self.tile < 32:
            yield f"augment.tile is a side of at least 32 pixels, got {self.tile}"
        if self.strong_epochs is not None and self.strong_epochs < 0:
            yield f"augment.strong_epochs must not be negative, got {self.strong_epochs}"
        if self.mixup and not self.same_square:
            yield (
                "augment.mixup needs images of one size in a step: set augment.squares and "
                "augment.same_square=true"
            )
        first, end = self.mixed_epochs or (0, 1)
        if not 0 <= first <= end:
            yield f"augment.mixed_epochs must be first,end from 0 in order, got {first},{end}"
        for key in ("flip", "crop", "photometric", "zoom_out", "iou_crop", "mosaic", "mixup"):
            value = getattr(self, key)
            if not 0 <= value <= 1:
                yield f"augment.{key} is a probability, got {value}"
        low, high = self.crop_sides
        if low > high:
            yield f"augment.crop_sides must be smallest,largest, got {low},{high}"

    def wrong_sides(self, multiple: int) -> tuple[int, ...]:
        """Sides of squares that are no multiples of what a student takes, each once."""
        squares = [side for side in (*self.squares, self.eval_square) if side is not None]
        return tuple(dict.fromkeys(side for side in squares if side < 1 or side % multiple))
