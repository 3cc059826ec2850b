"""Presets of D-FINE (Peterande/D-FINE, `configs/dfine`) and DEIM (Intellindust-AI-Lab/DEIM,
`configs/deim_dfine`).

Both squash images to squares and leave the strong augmentation out in the last epochs, at whose
begin they go back to the best weights so far. D-FINE's rate is constant; DEIM's falls to its half
from the middle on, and half of its images are mosaics, and batches mixed, in between. Its authors
exempt the backbone's norms from weight decay by a pattern that does not find them
(`(?!.*norm|bn)` excludes names that *begin* with bn), so they decay here as they do there.
"""

from dataclasses import replace
from typing import Any

from student_train.config import DataConfig, OptimConfig, TrainConfig
from student_train.losses import LossConfig, TeacherLossConfig
from student_train.models.families.d_fine.model import DFineConfig
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

LOSS = LossConfig(
    classification="vfl",
    giou_eps=0,
    pairs="union",
    # proposals are a layer like the others here, with classes of their own
    teacher=TeacherLossConfig(proposals="weighted"),
)
DEIM_LOSS = replace(LOSS, classification="mal")

SIZES: dict[str, dict[str, Any]] = {
    "n": {
        "strides": (16, 32),
        "n_points": (6, 6),
        "dim": 128,
        "ffn_dim": 512,
        "encoder_dim": 128,
        "encoder_ffn_dim": 512,
        "expansion": 0.34,
        "depth": 0.5,
    },
    "s": {},
    "m": {"backbone": "hgnetv2_b2", "expansion": 1.0, "depth": 0.67, "decoder_layers": 4},
    "l": {"backbone": "hgnetv2_b4", "expansion": 1.0, "depth": 1.0, "decoder_layers": 6},
    "x": {
        "backbone": "hgnetv2_b5",
        "encoder_dim": 384,
        "encoder_ffn_dim": 2048,
        "expansion": 1.0,
        "depth": 1.0,
        "decoder_layers": 6,
        "reg_scale": 8.0,
    },
}
"""settings of the official sizes"""

# sides around 640 px, which comes as often as `base_size_repeat` says
_SCALES = tuple(range(480, 801, 32))
_NORMS = (r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn)).*$",)
_NORMS_AND_BIASES = (r"^(?=.*(?:encoder|decoder))(?=.*(?:norm|bn|bias)).*$",)


def _d_fine(
    size: str,
    lr: float,
    backbone_lr: float,
    epochs: int,
    strong: int,
    repeat: int,
    weight_decay: float = 1e-4,
    **model: Any,
) -> TrainConfig:
    """`repeat`: how often 640 px is among the squares; 0: alone."""
    squares = tuple(sorted((*_SCALES, *(640,) * (repeat - 1)))) if repeat else (640,)
    return TrainConfig(
        model=DFineConfig(**SIZES[size], **model),
        loss=LOSS,
        data=DataConfig(class_space="contiguous"),
        augment=strong_squares(squares, strong),
        optim=OptimConfig(
            lr=lr,
            backbone_lr=backbone_lr,
            weight_decay=weight_decay,
            no_decay=_NORMS_AND_BIASES if size == "n" else _NORMS,
            schedule="constant",
            warmup_steps=500,
            ema=0.9999,
            ema_ramp=1000,
            restart_epoch=strong,
            restart_ema=0.9998,
        ),
        epochs=epochs,
        batch_size=128 if size == "n" else 32,
    )


def d_fine_n() -> TrainConfig:
    """D-FINE-N: HGNetv2-B0, two maps, 160 epochs (official `dfine_hgnetv2_n_coco`)."""
    return _d_fine("n", 8e-4, 4e-4, epochs=160, strong=148, repeat=0)


def d_fine_s() -> TrainConfig:
    """D-FINE-S: HGNetv2-B0, 132 epochs (official `dfine_hgnetv2_s_coco`)."""
    return _d_fine("s", 2e-4, 1e-4, epochs=132, strong=120, repeat=20)


def d_fine_m() -> TrainConfig:
    """D-FINE-M: HGNetv2-B2, 132 epochs (official `dfine_hgnetv2_m_coco`)."""
    return _d_fine("m", 2e-4, 2e-5, epochs=132, strong=120, repeat=6)


def d_fine_l() -> TrainConfig:
    """D-FINE-L: HGNetv2-B4, 80 epochs (official `dfine_hgnetv2_l_coco`)."""
    decay = {"weight_decay": 1.25e-4}
    return _d_fine("l", 2.5e-4, 1.25e-5, epochs=80, strong=72, repeat=4, **decay, **FROZEN)


def d_fine_x() -> TrainConfig:
    """D-FINE-X: HGNetv2-B5, 80 epochs (official `dfine_hgnetv2_x_coco`)."""
    decay = {"weight_decay": 1.25e-4}
    return _d_fine("x", 2.5e-4, 2.5e-6, epochs=80, strong=72, repeat=3, **decay, **FROZEN)


def _deim(like: TrainConfig, lr: float, backbone_lr: float, epochs: int, plain: int) -> TrainConfig:
    """DEIM on a size of D-FINE; `plain`: the last epochs, which are not augmented."""
    strong = epochs - plain
    middle = 4 + strong // 2
    smallest = like.model.strides == (16, 32)  # type: ignore[attr-defined]
    optim = replace(
        like.optim,
        lr=lr,
        backbone_lr=backbone_lr,
        schedule="constant" if smallest else "flat_cosine",
        flat_epochs=middle,
        cosine_epochs=strong,
        min_lr=lr / 2,
        warmup_steps=2000,
        restart_epoch=strong,
        restart_ema=0.9999,
    )
    model = replace(
        like.model,
        activation="silu",
        # all of them are trained
        norm="batch",
        frozen_stages=None,
        frozen_stem=False,
    )
    augment = replace(
        like.augment, strong_epochs=strong, mosaic=0.5, mixup=0.5, mixed_epochs=(4, middle)
    )
    return replace(like, model=model, loss=DEIM_LOSS, augment=augment, optim=optim, epochs=epochs)


def deim_n() -> TrainConfig:
    """DEIM-D-FINE-N, 160 epochs (official `deim_hgnetv2_n_coco`)."""
    return _deim(d_fine_n(), 8e-4, 4e-4, epochs=160, plain=12)


def deim_s() -> TrainConfig:
    """DEIM-D-FINE-S, 132 epochs (official `deim_hgnetv2_s_coco`)."""
    return _deim(d_fine_s(), 4e-4, 2e-4, epochs=132, plain=12)


def deim_m() -> TrainConfig:
    """DEIM-D-FINE-M, 102 epochs (official `deim_hgnetv2_m_coco`)."""
    return _deim(d_fine_m(), 4e-4, 4e-5, epochs=102, plain=12)


def deim_l() -> TrainConfig:
    """DEIM-D-FINE-L, 58 epochs (official `deim_hgnetv2_l_coco`)."""
    return _deim(d_fine_l(), 5e-4, 2.5e-5, epochs=58, plain=8)


def deim_x() -> TrainConfig:
    """DEIM-D-FINE-X, 58 epochs (official `deim_hgnetv2_x_coco`)."""
    return _deim(d_fine_x(), 5e-4, 5e-6, epochs=58, plain=8)


def d_fine_mobilenetv2() -> TrainConfig:
    """A small D-FINE on MobileNetV2 at 256 px, for a CPU and a few hundred images."""
    model = DFineConfig(**PHOTOS, norm="frozen", encoder_dim=128, encoder_ffn_dim=512)
    return for_photos(model, LOSS)


def d_fine_scenes() -> TrainConfig:
    """A D-FINE that learns scenes on a CPU."""
    model = DFineConfig(**SMALL, encoder_dim=96, encoder_ffn_dim=256, depth=1 / 3, dn_number=20)
    return on_squares(for_scenes(model, LOSS), 128, crop=0.0)


def d_fine_micro() -> TrainConfig:
    """As small as D-FINE gets."""
    model = DFineConfig(**SMALLEST, encoder_dim=32, encoder_ffn_dim=64, depth=1 / 3, dn_number=4)
    return on_squares(for_tests(model, LOSS), 64, crop=0.0)


_D_FINE, _DEIM = "README of Peterande/D-FINE", "README of Intellindust-AI-Lab/DEIM"

PRESETS = (
    Preset("d-fine-x", d_fine_x, "edges as distributions", Published(55.8, None, _D_FINE)),
    Preset("d-fine-l", d_fine_l, "the same, smaller", Published(54.0, None, _D_FINE)),
    Preset("d-fine-m", d_fine_m, "the same, for real time", Published(52.3, None, _D_FINE)),
    Preset("d-fine-s", d_fine_s, "the same, for small devices", Published(48.5, None, _D_FINE)),
    Preset("d-fine-n", d_fine_n, "the same, smallest", Published(42.8, None, _D_FINE)),
    Preset("deim-x", deim_x, "D-FINE trained as DEIM", Published(56.5, None, _DEIM)),
    Preset("deim-l", deim_l, "the same, smaller", Published(54.7, None, _DEIM)),
    Preset("deim-m", deim_m, "the same, for real time", Published(52.7, None, _DEIM)),
    Preset("deim-s", deim_s, "the same, for small devices", Published(49.0, None, _DEIM)),
    Preset("deim-n", deim_n, "the same, smallest", Published(43.0, None, _DEIM)),
    Preset("d-fine-mobilenetv2", d_fine_mobilenetv2, "a CPU and a few hundred photos"),
    Preset("d-fine-scenes", d_fine_scenes, "a CPU and the scenes of the demo"),
    Preset("d-fine-micro", d_fine_micro, "tests"),
)
