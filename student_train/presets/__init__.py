"""Presets: each a function that returns a complete configuration; one file a family.

A preset for a published row trains as that row was trained. Its AP is what its authors published
for a full run on COCO val2017; nothing here was measured by this project.
"""

import torch

from box_store.errors import nearest
from student_train.config import TrainConfig
from student_train.errors import ConfigError
from student_train.models import build_student
from student_train.models.families.d_fine.presets import D_FINE
from student_train.models.families.lw_detr.presets import LW_DETR
from student_train.models.families.rf_detr.presets import RF_DETR
from student_train.models.families.rtdetr_v2.presets import RTDETR_V2
from student_train.presets.conditional_detr import CONDITIONAL_DETR
from student_train.presets.dab_detr import DAB_DETR
from student_train.presets.deformable_detr import DEFORMABLE_DETR
from student_train.presets.dino import DINO
from student_train.presets.dn_detr import DN_DETR
from student_train.presets.h_detr import H_DETR
from student_train.presets.preset import Preset, Published
from student_train.presets.vidt import VIDT
from student_train.presets.yolos import YOLOS

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        *CONDITIONAL_DETR,
        *DAB_DETR,
        *DN_DETR,
        *YOLOS,
        *VIDT,
        *DEFORMABLE_DETR,
        *H_DETR,
        *DINO,
        *RTDETR_V2,
        *LW_DETR,
        *RF_DETR,
        *D_FINE,
    )
}
"""every preset by name"""


def load_preset(name: str) -> TrainConfig:
    """The complete configuration of a preset, its name filled in.

    Raises:
        ConfigError: unknown name; the nearest is suggested.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(
            [f"unknown preset {name!r}.{nearest(name, PRESETS)} The presets are: {known}"]
        )
    config = PRESETS[name].make()
    return type(config)(**{**vars(config), "preset": name})


def count_parameters(config: TrainConfig) -> int:
    """Parameters of the student, frozen ones included; built on the meta device, so nothing is
    allocated.
    """
    with torch.device("meta"):
        model = build_student(config.model)
    return sum(parameter.numel() for parameter in model.parameters())


__all__ = ["PRESETS", "Preset", "Published", "count_parameters", "load_preset"]
