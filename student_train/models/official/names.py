"""Whose official code wrote a checkpoint, and under which names it stores our parameters.

A family's table is `names.py` in its folder; import and export are both loops over it, so one can't
drift from the other.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.families import FAMILIES
from student_train.models.family import Family
from student_train.models.official.arguments import settings_from_arguments
from student_train.models.shapes import settings_from_sizes
from student_train.models.student import Student


def detect_family(state: Mapping[str, Tensor], settings: Mapping[str, Any] | None = None) -> str:
    """Which family a state dict under official names is of: `dino`, `dn_detr`, `h_detr` ...

    `settings` are the official ones beside the weights, where there are some. Raises
    CheckpointError if it is none of the known ones.
    """
    for name, family in FAMILIES.items():
        if has_marks(family, state) and family.tell(state, settings or {}):
            return name
    raise CheckpointError(
        f"no known detector wrote these {len(state)} parameters, of which the first is "
        f"{next(iter(state), 'none')!r}; known are {', '.join(FAMILIES)}, as their official "
        "repositories store them"
    )


def has_marks(family: Family, state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of a family."""
    return all(mark in state for mark in family.marks)


def is_known(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of some family."""
    return any(has_marks(family, state) for family in FAMILIES.values())


def settings_from_shapes(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of a family's configuration that a state dict under official names determines."""
    family = FAMILIES[name]
    return settings_from_sizes(family.sizes, state) | family.from_state(state)


def settings_beside(
    name: str, settings: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Fields of a family's configuration that official settings determine."""
    family = FAMILIES[name]
    return settings_from_arguments(family.config, settings) | family.from_settings(settings, state)


def official_names(student: Student, key: str) -> list[str]:
    """Every official name under which our parameter or buffer `key` is stored; first the original.

    Raises CheckpointError for a parameter without one.
    """
    names = FAMILIES[student.config.family].names(student, key)
    if not names:
        raise CheckpointError(f"{type(student).__name__} has no official name for {key}")
    return names
