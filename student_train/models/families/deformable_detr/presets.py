"""Presets of two-stage Deformable DETR, plain and with the tricks, as H-DETR's repository trains it
as its baselines (`configs/two_stage/deformable-detr-baseline/36eps`).
"""

from dataclasses import replace

from student_train.config import OptimConfig, TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.deformable_detr.model import DeformableDetrConfig
from student_train.presets.preset import (
    SMALL,
    SMALLEST,
    Preset,
    Published,
    for_scenes,
    for_tests,
    teach_detr,
)

LOSS = LossConfig(class_loss=2, giou_eps=0)
OPTIM = OptimConfig(lr=2e-4, backbone_lr=2e-5, offsets_lr_factor=0.1, drop_epochs=(30,))
SWIN_T = "swin_tiny_patch4_window7_224"
SWIN_S = "swin_small_patch4_window7_224"


def deformable_r50() -> TrainConfig:
    """Deformable DETR, two-stage, ResNet-50, 36 epochs."""
    return TrainConfig(model=DeformableDetrConfig(), loss=LOSS, optim=OPTIM, epochs=36)


def deformable_swin_s() -> TrainConfig:
    """Deformable DETR, two-stage, Swin-S, 36 epochs."""
    model = DeformableDetrConfig(backbone=SWIN_S, drop_path=0.2)
    return TrainConfig(model=model, loss=LOSS, optim=OPTIM, epochs=36)


def deformable_tricks_r50() -> TrainConfig:
    """The same as `deformable-r50` with dropout 0, mixed selection, look forward twice."""
    return _with_tricks(deformable_r50())


def deformable_tricks_swin_s() -> TrainConfig:
    """The same as `deformable-swin-s` with dropout 0, mixed selection, look forward twice."""
    return _with_tricks(deformable_swin_s())


def _with_tricks(plain: TrainConfig) -> TrainConfig:
    model = replace(plain.model, dropout=0.0, mixed_selection=True, look_forward_twice=True)
    return replace(plain, model=model)


def deformable_micro() -> TrainConfig:
    """As small as Deformable DETR gets."""
    return for_tests(DeformableDetrConfig(**SMALLEST, n_levels=3), LOSS)


def deformable_scenes() -> TrainConfig:
    """A Deformable DETR that learns scenes on a CPU."""
    return for_scenes(DeformableDetrConfig(**SMALL, n_levels=3), LOSS)


_README = "README of HDETR/H-Deformable-DETR"

PRESETS = (
    Preset("deformable-swin-s", deformable_swin_s, "two stages", teach_detr(50.7, 53.2)),
    Preset(
        "deformable-r50",
        deformable_r50,
        "the same, smaller",
        Published(46.8, None, _README),
    ),
    Preset(
        "deformable-tricks-swin-s",
        deformable_tricks_swin_s,
        "two stages with the tricks",
        teach_detr(53.8, 55.5),
    ),
    Preset(
        "deformable-tricks-r50",
        deformable_tricks_r50,
        "the same, smaller",
        Published(49.0, None, _README),
    ),
    Preset("deformable-scenes", deformable_scenes, "a CPU and the scenes of the demo"),
    Preset("deformable-micro", deformable_micro, "tests"),
)
