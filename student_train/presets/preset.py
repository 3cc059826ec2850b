"""What a preset is, and what the presets of all families are built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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


def strong_squares(squares: tuple[int, ...], strong_epochs: int) -> AugmentConfig:
    """RT-DETR's augmentation: all images of a step squashed to one of the `squares`, colours, scale
    and crops varied in the first epochs.
    """
    return AugmentConfig(
        crop=0.0,
        photometric=0.5,
        zoom_out=0.5,
        iou_crop=0.8,
        strong_epochs=strong_epochs,
        squares=squares,
        same_square=True,
        eval_square=640,
    )


def on_squares(config: TrainConfig, side: int, crop: float | None = None) -> TrainConfig:
    """The same on images that are squashed to squares of one size, cropped as often as they were
    unless `crop` says how often.
    """
    crop = config.augment.crop if crop is None else crop
    augment = replace(config.augment, squares=(side,), eval_square=side, crop=crop)
    return replace(config, augment=augment)


# batch norms of a backbone stay as its weights have them, and so does its stem
FROZEN: dict[str, Any] = {"norm": "frozen", "frozen_stages": 0, "frozen_stem": True}

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


# and of one on MobileNetV2
PHOTOS: dict[str, Any] = {
    "backbone": "mobilenetv2_100",
    "n_queries": 100,
    "dim": 128,
    "n_heads": 4,
    "decoder_layers": 3,
    "ffn_dim": 512,
    "dn_number": 50,
    "top_k": 100,
}


def without_encoder(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a small student that has a ViT of its own and no encoder."""
    left_out = ("backbone", "norm", "encoder_layers")
    return {key: value for key, value in settings.items() if key not in left_out}


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


def for_photos(
    model: StudentConfig,
    loss: LossConfig | None = None,
    augment: AugmentConfig | None = None,
    optim: OptimConfig | None = None,
    data: DataConfig | None = None,
) -> TrainConfig:
    """A small student at 256 px for a CPU and a few hundred images; by default its images are
    squashed and its classes counted anew.
    """
    return TrainConfig(
        model=model,
        loss=loss or LossConfig(),
        data=data or DataConfig(workers=0, class_space="contiguous"),
        augment=augment
        or AugmentConfig(
            crop=0.0, squares=(192, 224, 256, 288, 320), same_square=True, eval_square=256
        ),
        optim=optim or OptimConfig(lr=4e-4, backbone_lr=1e-4, schedule="cosine", warmup_steps=100),
        epochs=60,
        batch_size=8,
        eval_every=20,
        log_every=10,
        save_every=200,
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
