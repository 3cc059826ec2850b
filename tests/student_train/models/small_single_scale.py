"""Conditional DETR, DAB-DETR and DN-DETR as small as tests need them."""

from dataclasses import replace

import pytest
import torch

from student_train.losses import LossConfig
from student_train.models import (
    ConditionalDetrConfig,
    DabDetrConfig,
    DnDetrConfig,
    StudentConfig,
    build_student,
)
from student_train.models.single_scale import SingleScaleStudent

SIZES = [(61, 83), (50, 70)]


SMALL = {
    "backbone": "test_resnet",
    "n_classes": 7,
    "n_queries": 9,
    "dim": 32,
    "n_heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "ffn_dim": 32,
    "dropout": 0.0,
    "top_k": 5,
}


KINDS: dict[str, StudentConfig] = {
    "conditional": ConditionalDetrConfig(**SMALL),
    "dab": DabDetrConfig(**SMALL),
    "patterns": DabDetrConfig(**SMALL, n_patterns=2),
    "dn": DnDetrConfig(**SMALL),
}


LOSSES = {
    "conditional": LossConfig(class_loss=2, giou_eps=0),
    "dab": LossConfig(),
    "patterns": LossConfig(),
    "dn": LossConfig(denoising_background=0, denoising_counts="own"),
}


each_kind = pytest.mark.parametrize("kind", KINDS)


def small(kind: str, **changes: object) -> SingleScaleStudent:
    """Every parameter and statistic moved off its initial value: zeros would hide errors."""
    torch.manual_seed(0)
    student = build_student(replace(KINDS[kind], **changes))
    assert isinstance(student, SingleScaleStudent)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in student.named_buffers():
            if name.endswith(("running_mean", "bias")):
                buffer += 0.1 * torch.randn_like(buffer)
            elif name.endswith(("running_var", "weight")):
                buffer *= 1 + 0.2 * torch.rand_like(buffer)
    return student


def same_predictions(a, b, **tolerance: float) -> None:
    for one, other in zip(a.layers, b.layers, strict=True):
        torch.testing.assert_close(one.logits, other.logits, **tolerance)
        torch.testing.assert_close(one.boxes, other.boxes, **tolerance)


CLOSE = {"atol": 1e-9, "rtol": 1e-9}
