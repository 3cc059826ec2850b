"""What a preset is, and what the presets of all families are built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from student_train.config import AugmentConfig, DataConfig, OptimConfig, TrainConfig
from student_train.losses import LossConfig
from student_train.models import StudentConfig


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


# settings of a transformer over a backbone's maps
SMALLEST: dict[str, Any] = {
    "backbone": "test_efficientnet",
    "norm": "batch",
    "n_queries": 20,
    "dim": 32,
    "n_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "ffn_dim": 64,
    "dropout": 0.0,
    "top_k": 20,
}
SMALL: dict[str, Any] = {
    "backbone": "lcnet_050",
    "norm": "batch",
    "n_queries": 50,
    "dim": 96,
    "n_heads": 3,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "ffn_dim": 256,
    "dropout": 0.0,
    "top_k": 50,
}


def fifty_epochs(model: StudentConfig, loss: LossConfig) -> TrainConfig:
    """50 epochs, the rate dropped after 40: Conditional, DAB and DN-DETR were all trained so."""
    return TrainConfig(model=model, loss=loss, optim=OptimConfig(drop_epochs=(40,)), epochs=50)


def for_tests(model: StudentConfig, loss: LossConfig) -> TrainConfig:
    """A student that is as small as its family gets, at 64 px, for four epochs."""
    return TrainConfig(
        model=model,
        loss=loss,
        data=DataConfig(workers=0, class_space="contiguous"),
        augment=small_images(64, crop=0.5),
        optim=OptimConfig(lr=1e-3, backbone_lr=1e-3, drop_epochs=(3,)),
        epochs=4,
        batch_size=4,
        log_every=2,
        save_every=4,
    )


def for_scenes(model: StudentConfig, loss: LossConfig, lr: float = 1e-3) -> TrainConfig:
    """A student of about a million parameters that learns the scenes of `teach-detr demo` on a CPU,
    at 128 px.

    Batch norms of its backbone are trained, for there are no ImageNet weights behind it.
    """
    return TrainConfig(
        model=model,
        loss=loss,
        data=DataConfig(workers=0, class_space="contiguous"),
        augment=small_images(128),
        optim=OptimConfig(lr=lr, backbone_lr=lr, clip=1.0, schedule="cosine", warmup_steps=100),
        epochs=48,
        batch_size=16,
        eval_every=8,
        log_every=25,
    )
