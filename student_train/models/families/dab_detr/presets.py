"""Presets of DAB-DETR."""

from student_train.config import TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.dab_detr.model import DabDetrConfig
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

LOSS = LossConfig()


def dab_r101_dc5() -> TrainConfig:
    """DAB-DETR, dilated ResNet-101, 50 epochs."""
    return fifty_epochs(DabDetrConfig(backbone="resnet101"), LOSS)


def dab_r50_dc5() -> TrainConfig:
    """DAB-DETR, dilated ResNet-50, 50 epochs."""
    return fifty_epochs(DabDetrConfig(backbone="resnet50"), LOSS)


def dab_micro() -> TrainConfig:
    """As small as DAB-DETR gets."""
    return for_tests(DabDetrConfig(**SMALLEST), LOSS)


def dab_scenes() -> TrainConfig:
    """A DAB-DETR that learns scenes on a CPU."""
    return for_scenes(DabDetrConfig(**SMALL), LOSS)


PRESETS = (
    Preset("dab-r101-dc5", dab_r101_dc5, "anchors that are refined", teach_detr(45.8, 48.5)),
    Preset(
        "dab-r50-dc5",
        dab_r50_dc5,
        "the same, smaller",
        Published(44.5, None, "README of IDEA-Research/DAB-DETR"),
    ),
    Preset("dab-scenes", dab_scenes, "a CPU and the scenes of the demo"),
    Preset("dab-micro", dab_micro, "tests"),
)
