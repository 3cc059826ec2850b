"""Presets: each a function that returns a complete configuration; a family's are in its folder.

A preset for a published row trains as that row was trained. Its AP is what its authors published
for a full run on COCO val2017; nothing here was measured by this project.
"""

import re
from functools import cache
from importlib import import_module

import torch

from box_store.errors import nearest
from student_train.config import TrainConfig
from student_train.errors import ConfigError
from student_train.models import FAMILIES, StudentConfig, build_student
from student_train.models.families.rf_detr.files import LICENCE
from student_train.presets.preset import Preset, Published


@cache
def all_presets() -> dict[str, Preset]:
    """Every preset by name, family by family."""
    modules = [import_module(f"{family.package}.presets") for family in FAMILIES.values()]
    return {preset.name: preset for module in modules for preset in module.PRESETS}


def load_preset(name: str) -> TrainConfig:
    """The complete configuration of a preset, its name filled in.

    Raises:
        ConfigError: unknown name, of which the nearest is suggested; or one that a licence forbids.
    """
    presets = all_presets()
    if re.fullmatch(r"rf-?detr-(2?xl|2?xlarge|xxlarge)", name):
        raise ConfigError([LICENCE])
    if name not in presets:
        known = ", ".join(presets)
        raise ConfigError(
            [f"unknown preset {name!r}.{nearest(name, presets)} The presets are: {known}"]
        )
    config = presets[name].make()
    return type(config)(**{**vars(config), "preset": name})


def count_parameters(config: TrainConfig) -> int:
    """Parameters of the student, frozen ones included; built on the meta device, so nothing is
    allocated.
    """
    return _count(config.model)


@cache
def _count(model: StudentConfig) -> int:
    with torch.device("meta"):
        student = build_student(model)
    return sum(parameter.numel() for parameter in student.parameters())


__all__ = ["Preset", "Published", "all_presets", "count_parameters", "load_preset"]
