"""What the package knows of a family of students, in one record.

A family is a folder in `student_train/models/families/` and its name in the table there:

    __init__.py   FAMILY, the record below
    model.py      settings and network
    presets.py    PRESETS: named configurations (`student_train.presets`)
    parity.py     PARITY: how golden sets of it are compared (`student_train.parity`); may be absent
    hub.py        HUB: how transformers stores it (`student_train.models.hub`); may be absent
    names.py      under which names official files hold its parameters

The record is all that models, checkpoints and the trainer need. Presets and parity stand on top of
the trainer's configuration, so they are imported by name when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from student_train.models.config import StudentConfig
from student_train.models.shapes import Sizes
from student_train.models.student import Student

State = Mapping[str, Tensor]
"""a state dict under official names"""
Settings = Mapping[str, Any]


def _always(state: State, settings: Settings) -> bool:
    return True


def _nothing(*_: object) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of students."""

    config: type[StudentConfig]
    student: Callable[[Any], Student]
    """builds the network of a configuration"""
    package: str
    """its folder as a package, where presets and parity are looked for"""
    names: Callable[[Any, str], list[str]]
    """every official name of one of a student's parameters, first the original"""
    marks: tuple[str, ...]
    """official names that together say that a file holds this family, or one with the same names"""
    tell: Callable[[State, Settings], bool] = _always
    """whether a file with these marks, and the settings beside its weights, is of this family and
    not of another with the same marks"""
    sizes: Sizes = field(default_factory=dict)
    """settings that are the length of an official tensor"""
    from_state: Callable[[State], dict[str, Any]] = _nothing
    """further settings that an official state dict tells"""
    unsaid: Mapping[str, str] = field(default_factory=dict)
    """settings that no file tells although another value computes something else -> a sentence for
    whoever imports a file without saying them"""
    from_settings: Callable[[Settings, State], dict[str, Any]] = _nothing
    """further settings that the official settings beside a state dict tell, in words that other
    families do not share (`student_train.models.official.arguments` has those)"""

    @property
    def name(self) -> str:
        """As configurations and files say it."""
        return self.config.family
