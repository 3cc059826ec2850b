"""Presets of H-Deformable-DETR (`configs/two_stage/deformable-detr-hybrid-branch/36eps`)."""

from student_train.config import TrainConfig
from student_train.models.families.deformable_detr.presets import LOSS, OPTIM, SWIN_S, SWIN_T
from student_train.models.families.h_detr.model import HDetrConfig
from student_train.presets.preset import (
    SMALL,
    SMALLEST,
    Preset,
    Published,
    for_scenes,
    for_tests,
    teach_detr,
)

_SWIN_L = "swin_large_patch4_window7_224"


def h_deformable_r50() -> TrainConfig:
    """H-Deformable-DETR, ResNet-50, 36 epochs."""
    return _official(HDetrConfig())


def h_deformable_swin_t() -> TrainConfig:
    """H-Deformable-DETR, Swin-T, 36 epochs."""
    return _official(HDetrConfig(backbone=SWIN_T, drop_path=0.2))


def h_deformable_swin_s() -> TrainConfig:
    """H-Deformable-DETR, Swin-S, 36 epochs."""
    return _official(HDetrConfig(backbone=SWIN_S, drop_path=0.2))


def h_deformable_swin_l() -> TrainConfig:
    """H-Deformable-DETR, Swin-L (ImageNet-22k, 224, window 7), 36 epochs."""
    return _official(HDetrConfig(backbone=_SWIN_L, drop_path=0.5, checkpointing=True))


def h_deformable_swin_l_900() -> TrainConfig:
    """The same with 900 queries, of which the best 300 detections count."""
    model = HDetrConfig(
        backbone=_SWIN_L, drop_path=0.5, checkpointing=True, n_queries=900, top_k=300
    )
    return _official(model)


def _official(model: HDetrConfig) -> TrainConfig:
    return TrainConfig(model=model, loss=LOSS, optim=OPTIM, epochs=36)


def h_deformable_micro() -> TrainConfig:
    """As small as H-Deformable-DETR gets."""
    return for_tests(HDetrConfig(**SMALLEST, n_levels=3, n_queries_one_to_many=30), LOSS)


def h_deformable_scenes() -> TrainConfig:
    """An H-Deformable-DETR that learns scenes on a CPU."""
    return for_scenes(HDetrConfig(**SMALL, n_levels=3, n_queries_one_to_many=100), LOSS)


_README = "README of HDETR/H-Deformable-DETR"

PRESETS = (
    Preset(
        "h-deformable-r50",
        h_deformable_r50,
        "one-to-many queries in training",
        teach_detr(50.0, 51.9),
    ),
    Preset(
        "h-deformable-swin-t",
        h_deformable_swin_t,
        "the same on Swin-T",
        Published(53.2, None, _README),
    ),
    Preset(
        "h-deformable-swin-s",
        h_deformable_swin_s,
        "the same on Swin-S",
        teach_detr(54.2, 55.8),
    ),
    Preset(
        "h-deformable-swin-l",
        h_deformable_swin_l,
        "the same on Swin-L",
        teach_detr(57.1, 58.0),
    ),
    Preset(
        "h-deformable-swin-l-900",
        h_deformable_swin_l_900,
        "the same with 900 queries",
        teach_detr(57.6, 58.5),
    ),
    Preset("h-deformable-scenes", h_deformable_scenes, "a CPU and the scenes of the demo"),
    Preset("h-deformable-micro", h_deformable_micro, "tests"),
)
