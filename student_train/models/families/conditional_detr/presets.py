"""Presets of Conditional DETR."""

from student_train.config import TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.conditional_detr.model import ConditionalDetrConfig
from student_train.presets.preset import (
    SMALL,
    SMALLEST,
    Preset,
    Published,
    fifty_epochs,
    for_scenes,
    for_tests,
    teach_detr,
)

LOSS = LossConfig(class_loss=2, giou_eps=0)


def conditional_r101_dc5() -> TrainConfig:
    """Conditional DETR, dilated ResNet-101, 50 epochs (official `conddetr_r101dc5_epoch50`)."""
    return _official("resnet101", stride=16)


def conditional_r50_dc5() -> TrainConfig:
    """Conditional DETR, dilated ResNet-50, 50 epochs (official `conddetr_r50dc5_epoch50`)."""
    return _official("resnet50", stride=16)


def conditional_r50() -> TrainConfig:
    """Conditional DETR, ResNet-50, 50 epochs (official `conddetr_r50_epoch50`)."""
    return _official("resnet50", stride=32)


def _official(backbone: str, stride: int) -> TrainConfig:
    model = ConditionalDetrConfig(backbone=backbone, strides=(stride,), output_stride=stride)
    return fifty_epochs(model, LOSS)


def conditional_micro() -> TrainConfig:
    """As small as Conditional DETR gets."""
    return for_tests(ConditionalDetrConfig(**SMALLEST), LOSS)


def conditional_scenes() -> TrainConfig:
    """A Conditional DETR that learns scenes on a CPU."""
    return for_scenes(ConditionalDetrConfig(**SMALL), LOSS)


_README = "README of Atten4Vis/ConditionalDETR"

PRESETS = (
    Preset(
        "conditional-r101-dc5",
        conditional_r101_dc5,
        "one map of stride 16",
        teach_detr(45.0, 46.7),
    ),
    Preset(
        "conditional-r50-dc5",
        conditional_r50_dc5,
        "the same, smaller",
        Published(43.7, None, _README),
    ),
    Preset(
        "conditional-r50",
        conditional_r50,
        "one map of stride 32: the fastest of the family",
        Published(41.0, None, _README),
    ),
    Preset("conditional-scenes", conditional_scenes, "a CPU and the scenes of the demo"),
    Preset("conditional-micro", conditional_micro, "tests"),
)
