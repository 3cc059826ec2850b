"""What a preset is, and what the presets of all families are built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from student_train.config import AugmentConfig, TrainConfig


@dataclass(frozen=True)
class Published:
    """AP on COCO val2017 in percent, as its authors published it for a full run."""

    ap: float
    ap_with_teachers: float | None
    source: str


@dataclass(frozen=True)
class Preset:
    """A named configuration. `use` says in a few words what it is for."""

    name: str
    make: Callable[[], TrainConfig]
    use: str
    published: Published | None = None


def teach_detr(ap: float, ap_with_teachers: float) -> Published:
    """A row of the Teach-DETR paper's table."""
    return Published(ap, ap_with_teachers, "Teach-DETR, arXiv 2211.11953")


def small_images(side: int, crop: float = 0.0) -> AugmentConfig:
    """DETR's augmentation, its lengths in proportion to an evaluation size of `side` instead of
    800.
    """

    def scaled(length: int) -> int:
        return max(16, round(length * side / 800 / 8) * 8)

    official = AugmentConfig()
    low, high = official.crop_sides
    return AugmentConfig(
        short_sides=tuple(dict.fromkeys(scaled(length) for length in official.short_sides)),
        long_side=scaled(official.long_side),
        crop=crop,
        crop_resize=tuple(scaled(length) for length in official.crop_resize),
        crop_sides=(scaled(low), scaled(high)),
        eval_short_side=side,
        eval_long_side=scaled(official.long_side),
    )
