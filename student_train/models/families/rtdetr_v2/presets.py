"""Presets of RT-DETRv2 (lyuwenyu/RT-DETR, `rtdetrv2_pytorch/configs/rtdetrv2`).

The rate falls after 1000 epochs there, that is, never. Batch norms of the larger backbones stay as
their weights have them, and so does their stem.
"""

from student_train.config import DataConfig, OptimConfig, TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.rtdetr_v2.model import RtDetrV2Config
from student_train.presets.preset import (
    FROZEN,
    PHOTOS,
    SMALL,
    SMALLEST,
    Preset,
    Published,
    for_photos,
    for_scenes,
    for_tests,
    on_squares,
    strong_squares,
)

LOSS = LossConfig(classification="vfl", giou_eps=0)

# 640 px thrice as often as the others
_SCALES = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
_NORMS = r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn)).*$"


def rtdetrv2_r18() -> TrainConfig:
    """RT-DETRv2-S: ResNet-18, 120 epochs (official `rtdetrv2_r18vd_120e_coco`)."""
    model = RtDetrV2Config(backbone="presnet18", expansion=0.5, decoder_layers=3)
    optim = _optim(backbone_lr=1e-4, no_decay=(r"^(?=.*(?:norm|bn)).*$",))
    # every step at 640 px
    return _official(model, optim, epochs=120, strong=117, scales=(640,))


def rtdetrv2_r34() -> TrainConfig:
    """RT-DETRv2-M: ResNet-34, 120 epochs (official `rtdetrv2_r34vd_120e_coco`)."""
    model = RtDetrV2Config(backbone="presnet34", expansion=0.5, decoder_layers=4)
    undecayed = (
        r"^(?=.*backbone)(?=.*norm|bn).*$",
        r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn|bias)).*$",
    )
    return _official(model, _optim(backbone_lr=5e-5, no_decay=undecayed), epochs=120, strong=117)


def rtdetrv2_r50_m() -> TrainConfig:
    """RT-DETRv2-M*: ResNet-50, 84 epochs, of whose six decoder layers evaluation uses three
    (official `rtdetrv2_r50vd_m_7x_coco`).
    """
    model = RtDetrV2Config(expansion=0.5, eval_layers=3, **FROZEN)
    return _official(model, _optim(backbone_lr=1e-5), epochs=84, strong=81)


def rtdetrv2_r50() -> TrainConfig:
    """RT-DETRv2-L: ResNet-50, 72 epochs (official `rtdetrv2_r50vd_6x_coco`)."""
    return _official(RtDetrV2Config(**FROZEN), _optim(backbone_lr=1e-5), epochs=72, strong=71)


def rtdetrv2_r101() -> TrainConfig:
    """RT-DETRv2-X: ResNet-101, 72 epochs (official `rtdetrv2_r101vd_6x_coco`)."""
    model = RtDetrV2Config(backbone="resnet101d", encoder_dim=384, encoder_ffn_dim=2048, **FROZEN)
    return _official(model, _optim(backbone_lr=1e-6), epochs=72, strong=71)


def _optim(backbone_lr: float, no_decay: tuple[str, ...] = (_NORMS,)) -> OptimConfig:
    return OptimConfig(
        lr=1e-4,
        backbone_lr=backbone_lr,
        no_decay=no_decay,
        schedule="constant",
        warmup_steps=2000,
        ema=0.9999,
        ema_ramp=2000,
    )


def _official(
    model: RtDetrV2Config,
    optim: OptimConfig,
    epochs: int,
    strong: int,
    scales: tuple[int, ...] = _SCALES,
) -> TrainConfig:
    return TrainConfig(
        model=model,
        loss=LOSS,
        data=DataConfig(class_space="contiguous"),
        augment=strong_squares(scales, strong),
        optim=optim,
        epochs=epochs,
    )


def rtdetrv2_mobilenetv2() -> TrainConfig:
    """A small RT-DETRv2 on MobileNetV2 at 256 px, for a CPU and a few hundred images."""
    model = RtDetrV2Config(
        **PHOTOS,
        norm="frozen",
        encoder_dim=128,
        encoder_ffn_dim=512,
        expansion=0.5,
        depth=1 / 3,
    )
    return for_photos(model, LOSS)


def rtdetrv2_scenes() -> TrainConfig:
    """An RT-DETRv2 that learns scenes on a CPU."""
    model = RtDetrV2Config(
        **SMALL, encoder_dim=96, encoder_ffn_dim=256, expansion=0.5, depth=1 / 3, dn_number=20
    )
    return on_squares(for_scenes(model, LOSS), 128, crop=0.0)


def rtdetrv2_micro() -> TrainConfig:
    """As small as RT-DETRv2 gets."""
    model = RtDetrV2Config(
        **SMALLEST, encoder_dim=32, encoder_ffn_dim=64, expansion=0.5, depth=1 / 3, dn_number=4
    )
    return on_squares(for_tests(model, LOSS), 64, crop=0.0)


_README = "README of lyuwenyu/RT-DETR, rtdetrv2_pytorch"


def _published(ap: float, size: str) -> Published:
    return Published(ap, None, f"{_README}: {size}")


PRESETS = (
    Preset("rtdetrv2-r101", rtdetrv2_r101, "real time", _published(54.3, "X")),
    Preset("rtdetrv2-r50", rtdetrv2_r50, "the same, smaller", _published(53.4, "L")),
    Preset(
        "rtdetrv2-r50-m",
        rtdetrv2_r50_m,
        "the same, three layers of six in use",
        _published(51.9, "M*"),
    ),
    Preset("rtdetrv2-r34", rtdetrv2_r34, "the same, smaller", _published(49.9, "M")),
    Preset("rtdetrv2-r18", rtdetrv2_r18, "the same, smallest", _published(47.9, "S")),
    Preset("rtdetrv2-mobilenetv2", rtdetrv2_mobilenetv2, "a CPU and a few hundred photos"),
    Preset("rtdetrv2-scenes", rtdetrv2_scenes, "a CPU and the scenes of the demo"),
    Preset("rtdetrv2-micro", rtdetrv2_micro, "tests"),
)
