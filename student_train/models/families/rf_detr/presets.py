"""Presets of RF-DETR (roboflow/rf-detr, `config.py` of 1.11).

XL and 2XL are not here: their licence, the Platform Model License 1.0, is none that a student may
be built under freely. Batches are of one size, drawn anew for each. The rate falls after the 100th
epoch of 100, that is, never.
"""

from dataclasses import replace
from typing import Any

from student_train.config import AugmentConfig, OptimConfig, TrainConfig
from student_train.models.families.lw_detr.presets import LOSS as LW_LOSS
from student_train.models.families.rf_detr.model import RfDetrConfig
from student_train.models.families.rf_detr.sizes import SIZES
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

# the matching takes logarithms of probabilities as they are
LOSS = replace(LW_LOSS, match=replace(LW_LOSS.match, log_eps=0.0))

OPTIM = OptimConfig(
    lr=1e-4,
    backbone_lr=1.5e-4,
    component_decay=0.7,
    layer_decay=0.8,
    schedule="constant",
    accumulate=4,
    ema=0.993,
    ema_ramp=100,
)


def _official(size: str, side: int) -> TrainConfig:
    model = RfDetrConfig(**SIZES[size])
    # five rows of windows more or less, and two at least
    rows = range(max(2, side // model.side_multiple - 5), side // model.side_multiple + 6)
    augment = AugmentConfig(
        squares=tuple(row * model.side_multiple for row in rows), same_square=True, eval_square=side
    )
    return TrainConfig(
        model=model, loss=LOSS, augment=augment, optim=OPTIM, epochs=100, batch_size=16
    )


def rf_detr_nano() -> TrainConfig:
    """RF-DETR-nano: DINOv2-S at 384 px, two decoder layers."""
    return _official("nano", 384)


def rf_detr_small() -> TrainConfig:
    """RF-DETR-small: at 512 px."""
    return _official("small", 512)


def rf_detr_medium() -> TrainConfig:
    """RF-DETR-medium: at 576 px."""
    return _official("medium", 576)


def rf_detr_large() -> TrainConfig:
    """RF-DETR-large: at 704 px; the one of 2026, not that on a DINOv2-B."""
    return _official("large", 704)


def rf_detr_base() -> TrainConfig:
    """RF-DETR-base, the first one: patches of 14 px, at 560 px."""
    return _official("base", 560)


def rf_detr_micro() -> TrainConfig:
    """As small as RF-DETR gets."""
    model = RfDetrConfig(
        **_SMALLEST_VIT, n_groups=3, n_sampling_heads=4, **without_encoder(SMALLEST)
    )
    return on_squares(for_tests(model, LOSS), 64)


def rf_detr_scenes() -> TrainConfig:
    """An RF-DETR that learns scenes on a CPU."""
    model = RfDetrConfig(**_SMALLEST_VIT, n_groups=5, n_sampling_heads=6, **without_encoder(SMALL))
    return on_squares(for_scenes(model, LOSS), 128)


_SMALLEST_VIT: dict[str, Any] = {"backbone": "dinov2_test", "stages": (1, 2, 3), "table_side": 8}
_README = "README of roboflow/rf-detr"

PRESETS = (
    Preset(
        "rf-detr-nano",
        rf_detr_nano,
        "LW-DETR on DINOv2, for few images of one's own",
        Published(48.4, None, _README),
    ),
    Preset("rf-detr-small", rf_detr_small, "the same at 512 px", Published(53.0, None, _README)),
    Preset("rf-detr-medium", rf_detr_medium, "the same at 576 px", Published(54.7, None, _README)),
    Preset("rf-detr-large", rf_detr_large, "the same at 704 px", Published(56.5, None, _README)),
    Preset("rf-detr-base", rf_detr_base, "the first one", Published(53.3, None, _README)),
    Preset("rf-detr-scenes", rf_detr_scenes, "a CPU and the scenes of the demo"),
    Preset("rf-detr-micro", rf_detr_micro, "tests"),
)
