"""Presets of LW-DETR (Atten4Vis/LW-DETR, `scripts/`).

Official runs have learned Objects365 for 30 epochs before the 60 on COCO; the published numbers are
those of both. Images are squashed to squares. The rate falls at the end of the last epoch, that is,
never.
"""

from dataclasses import replace

from student_train.config import AugmentConfig, OptimConfig, TrainConfig
from student_train.losses import LossConfig, TeacherLossConfig
from student_train.models.families.lw_detr.model import LwDetrConfig
from student_train.models.families.lw_detr.sizes import SIZES
from student_train.presets.preset import (
    SMALL,
    SMALLEST,
    Preset,
    Published,
    for_scenes,
    for_tests,
    on_squares,
    without_encoder,
)

LOSS = LossConfig(
    classification="ia_bce", giou_eps=0, teacher=TeacherLossConfig(proposals="weighted")
)
"""of LW-DETR. Its proposals have classes, and are supervised as a layer of the decoder is"""

AUGMENT = AugmentConfig(squares=tuple(range(448, 897, 64)), eval_square=640)
OPTIM = OptimConfig(
    lr=1e-4,
    backbone_lr=1.5e-4,
    component_decay=0.7,
    layer_decay=0.8,
    schedule="constant",
    ema=0.9997,
)


def _official(size: str, batch_size: int, optim: OptimConfig = OPTIM) -> TrainConfig:
    return TrainConfig(
        model=LwDetrConfig(**SIZES[size]),
        loss=LOSS,
        augment=AUGMENT,
        optim=optim,
        epochs=60,
        batch_size=batch_size,
    )


def lw_detr_tiny() -> TrainConfig:
    """LW-DETR-tiny: six blocks, 100 queries."""
    return _official("tiny", 32)


def lw_detr_small() -> TrainConfig:
    """LW-DETR-small: ten blocks."""
    return _official("small", 32)


def lw_detr_medium() -> TrainConfig:
    """LW-DETR-medium: twice as wide."""
    return _official("medium", 16, replace(OPTIM, layer_decay=0.7))


def lw_detr_large() -> TrainConfig:
    """LW-DETR-large: two levels, and a wider decoder."""
    return _official("large", 16, replace(OPTIM, layer_decay=0.7, component_decay=0.5))


def lw_detr_xlarge() -> TrainConfig:
    """LW-DETR-xlarge: a ViT-B."""
    optim = replace(OPTIM, layer_decay=0.75, component_decay=0.5, weight_decay=1e-3)
    return _official("xlarge", 16, optim)


def lw_detr_micro() -> TrainConfig:
    """As small as LW-DETR gets."""
    small = without_encoder(SMALLEST)
    model = LwDetrConfig(backbone="cae_vit_test_2", n_groups=3, n_sampling_heads=4, **small)
    return on_squares(for_tests(model, LOSS), 64)


def lw_detr_scenes() -> TrainConfig:
    """An LW-DETR that learns scenes on a CPU."""
    small = without_encoder(SMALL)
    model = LwDetrConfig(backbone="cae_vit_test_2", n_groups=5, n_sampling_heads=6, **small)
    return on_squares(for_scenes(model, LOSS), 128)


_README = "README of Atten4Vis/LW-DETR"

PRESETS = (
    Preset(
        "lw-detr-small",
        lw_detr_small,
        "a plain ViT in windows, for real time",
        Published(48.0, None, _README),
    ),
    Preset("lw-detr-tiny", lw_detr_tiny, "the same, smallest", Published(42.6, None, _README)),
    Preset("lw-detr-medium", lw_detr_medium, "the same, wider", Published(52.5, None, _README)),
    Preset(
        "lw-detr-large", lw_detr_large, "the same on two levels", Published(56.1, None, _README)
    ),
    Preset("lw-detr-xlarge", lw_detr_xlarge, "the same, largest", Published(58.3, None, _README)),
    Preset("lw-detr-scenes", lw_detr_scenes, "a CPU and the scenes of the demo"),
    Preset("lw-detr-micro", lw_detr_micro, "tests"),
)
