"""Presets of ViDT. The Swin, its tokens and the decoder learn at one rate."""

from student_train.config import OptimConfig, TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.vidt.model import VidtConfig
from student_train.presets.preset import (
    SMALL,
    SMALLEST,
    Preset,
    Published,
    for_scenes,
    for_tests,
    teach_detr,
    without_encoder,
)

LOSS = LossConfig(class_loss=2, giou_eps=0)


def vidt_swin_small() -> TrainConfig:
    """ViDT, Swin-S, 50 epochs."""
    return _official("swin_small_patch4_window7_224", drop_path=0.3)


def vidt_swin_tiny() -> TrainConfig:
    """ViDT, Swin-T, 50 epochs."""
    return _official("swin_tiny_patch4_window7_224", drop_path=0.2)


def vidt_swin_nano() -> TrainConfig:
    """ViDT, its authors' Swin-nano, 50 epochs."""
    return _official("swin_nano_patch4_window7_224", drop_path=0.0)


def _official(backbone: str, drop_path: float) -> TrainConfig:
    return TrainConfig(
        model=VidtConfig(backbone=backbone, drop_path=drop_path),
        loss=LOSS,
        optim=OptimConfig(lr=1e-4, backbone_lr=1e-4, schedule="cosine", min_lr=1e-7),
        epochs=50,
    )


_SMALLEST_SWIN = "swin_test_patch4_window7_224"


def vidt_micro() -> TrainConfig:
    """As small as ViDT gets."""
    model = VidtConfig(backbone=_SMALLEST_SWIN, drop_path=0.0, **without_encoder(SMALLEST))
    return for_tests(model, LOSS)


def vidt_scenes() -> TrainConfig:
    """A ViDT that learns scenes on a CPU."""
    model = VidtConfig(backbone=_SMALLEST_SWIN, drop_path=0.0, **without_encoder(SMALL))
    return for_scenes(model, LOSS)


_README = "README of naver-ai/vidt"

PRESETS = (
    Preset(
        "vidt-swin-small",
        vidt_swin_small,
        "tokens through a Swin, no encoder",
        teach_detr(47.2, 49.0),
    ),
    Preset("vidt-swin-tiny", vidt_swin_tiny, "the same, smaller", Published(44.9, None, _README)),
    Preset("vidt-swin-nano", vidt_swin_nano, "the same, smallest", Published(40.4, None, _README)),
    Preset("vidt-scenes", vidt_scenes, "a CPU and the scenes of the demo"),
    Preset("vidt-micro", vidt_micro, "tests"),
)
