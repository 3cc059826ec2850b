"""Presets of DN-DETR."""

from student_train.config import TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.dn_detr.model import DnDetrConfig
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

LOSS = LossConfig(denoising_background=0, denoising_counts="own")


def dn_r101_dc5() -> TrainConfig:
    """DN-DETR, dilated ResNet-101, 50 epochs."""
    return fifty_epochs(DnDetrConfig(backbone="resnet101"), LOSS)


def dn_r50_dc5() -> TrainConfig:
    """DN-DETR, dilated ResNet-50, 50 epochs."""
    return fifty_epochs(DnDetrConfig(backbone="resnet50"), LOSS)


def dn_micro() -> TrainConfig:
    """As small as DN-DETR gets."""
    return for_tests(DnDetrConfig(**SMALLEST, dn_groups=1), LOSS)


def dn_scenes() -> TrainConfig:
    """A DN-DETR that learns scenes on a CPU."""
    return for_scenes(DnDetrConfig(**SMALL), LOSS)


PRESETS = (
    Preset(
        "dn-r101-dc5",
        dn_r101_dc5,
        "DAB-DETR with denoising queries",
        teach_detr(47.3, 49.9),
    ),
    Preset(
        "dn-r50-dc5",
        dn_r50_dc5,
        "the same, smaller",
        Published(46.3, None, "README of IDEA-Research/DN-DETR"),
    ),
    Preset("dn-scenes", dn_scenes, "a CPU and the scenes of the demo"),
    Preset("dn-micro", dn_micro, "tests"),
)
