"""Parity of Conditional DETR, and the settings that DAB and DN-DETR say in the same words."""

from __future__ import annotations

from typing import Any

from student_train.models.families.conditional_detr.model import ConditionalDetrConfig
from student_train.parity.backbones import BACKBONES
from student_train.parity.family import FamilyParity, Settings
from student_train.parity.setups import FOCAL_2, truth


def sizes_of(settings: Settings) -> dict[str, Any]:
    """What the three have in common."""
    official = settings["config"]
    stride = 16 if official["dilation"] else 32
    return {
        "backbone": BACKBONES[official["backbone"]],
        "strides": (stride,),
        "output_stride": stride,
        "n_classes": settings["num_classes"],
        "n_queries": official["num_queries"],
        "dropout": official["dropout"],
    }


PARITY = FamilyParity(
    sets=("cond",),
    criteria={"criterion_conditional": truth(FOCAL_2)},
    config=lambda settings: ConditionalDetrConfig(**sizes_of(settings)),
    loss=FOCAL_2,
)
