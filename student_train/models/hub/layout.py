"""How transformers stores a family: one table from official names to those on disk, read in both
directions, and what its `config.json` says.

A family's own is `HUB` in `hub.py` of its folder. Names are those of files, not those of modules in
memory, from which transformers 5 makes and reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.families import FAMILIES
from student_train.models.official.foreign import Translation
from student_train.models.official.names import official_names
from student_train.models.student import Student

Table = Sequence[tuple[str, str]]
Settings = Mapping[str, Any]

_PACKED = r"self_attn\.in_proj_(weight|bias)$"
QUERY_KEY_VALUE: tuple[str, Table] = (
    _PACKED,
    tuple((_PACKED, rf"self_attn.{kind}_proj.\1") for kind in "qkv"),
)


def _nothing(_: object) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True, kw_only=True)
class HubLayout:
    """How transformers stores one family."""

    model_types: tuple[str, ...]
    """of `config.json`; the first is written"""
    architecture: str
    """class that loads the folder"""
    names: Table
    """official name -> that on disk, replaced one after another"""
    settings: Callable[[Settings], dict[str, Any]]
    """fields of our configuration from `config.json`; raises CheckpointError for what our student
    does not do"""
    packed: tuple[str, Table] = QUERY_KEY_VALUE
    """official names of tensors that are stored in parts, and the names of the parts in order,
    before `names`"""
    copies: Table = ()
    """further names on disk -> the first, of tensors that are stored twice"""
    config: Callable[[Any], dict[str, Any]]
    """`config.json` of a configuration of ours, less the classes; raises CheckpointError for what
    transformers does not do"""
    built: Callable[[Any], dict[str, Tensor]] = _nothing
    """buffers on disk that follow from the configuration, which our student does not store"""
    frozen_norms: bool = False
    """whether all its batch norms are frozen, so that theirs count no batches"""
    processor: str
    """class that makes pixels of images, and boxes of outputs"""
    square: bool = False
    """their model looks at padding, or wants sides that fit"""

    @staticmethod
    def beyond(name: str, layers: int) -> bool:
        """Whether a tensor on disk belongs to a decoder layer, or its heads, after the first
        `layers`.
        """
        found = re.match(
            r"model\.decoder\.(?:layers|(?:class|bbox)_embed|lqe_layers)\.(\d+)\.", name
        )
        return found is not None and int(found[1]) >= layers

    def on_disk(self, official: str) -> list[str]:
        """Name of an official tensor on disk; several, if it is stored in parts."""
        pattern, parts = self.packed
        names = [official]
        if re.search(pattern, official):
            names = [re.sub(old, new, official) for old, new in parts]
        for old, new in self.names:
            names = [re.sub(old, new, name) for name in names]
        return names


@cache
def hub_layout(family: str) -> HubLayout | None:
    """The layout of a family; none if transformers does not have it, or nobody has written it."""
    module = f"{FAMILIES[family].package}.hub"
    return import_module(module).HUB if find_spec(module) is not None else None


def layouts() -> dict[str, HubLayout]:
    """Every family that has one."""
    found = {name: hub_layout(name) for name in FAMILIES}
    return {name: layout for name, layout in found.items() if layout is not None}


def family_of_config(config: Settings) -> tuple[str, HubLayout]:
    """The family that a `config.json` is of.

    Raises CheckpointError for one of no known family.
    """
    kind = config.get("model_type")
    for name, layout in layouts().items():
        if kind in layout.model_types:
            return name, layout
    known = ", ".join(each for layout in layouts().values() for each in layout.model_types)
    raise CheckpointError(
        f"config.json is of model_type {kind!r}, which is none of the students here: {known}"
    )


def from_disk(layout: HubLayout, state: Mapping[str, Tensor], student: Student) -> Translation:
    """A folder's tensors under official names, as far as `student` has a place for them; the rest
    keeps its names.
    """
    left = _without_copies(layout, state)
    official: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key in student.state_dict():
        if key.endswith("num_batches_tracked"):
            continue
        for name in official_names(student, key):
            stored = layout.on_disk(name)
            if not all(each in left for each in stored):
                continue
            parts = [left[each] for each in stored]
            official[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
            origin[name] = " + ".join(stored)
    used = {each for name in official for each in layout.on_disk(name)}
    rest = {key: value for key, value in left.items() if key not in used}
    return Translation("transformers", official | rest, origin)


def to_disk(layout: HubLayout, student: Student) -> dict[str, Tensor]:
    """A student's tensors as transformers stores them."""
    found: dict[str, Tensor] = {}
    for key, value in student.state_dict().items():
        if layout.frozen_norms and key.endswith("num_batches_tracked"):
            continue
        stored = layout.on_disk(official_names(student, key)[0])
        parts = (value,) if len(stored) == 1 else value.chunk(len(stored))
        for name, part in zip(stored, parts, strict=True):
            found[name] = part.detach().clone().contiguous()
    return found | layout.built(student.config)


def _without_copies(layout: HubLayout, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that stand under a second name too are dropped there.

    Raises CheckpointError where the two differ.
    """
    left = dict(state)
    for name, value in state.items():
        for old, new in layout.copies:
            first = re.sub(old, new, name)
            if first != name and first in left:
                if not torch.equal(left[first], value):
                    raise CheckpointError(f"{name} and {first} should be one tensor and differ")
                left.pop(name, None)
    return left
