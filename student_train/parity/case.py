"""One case of a golden set of losses, and how it is put to our criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from student_train.losses import Criterion
from student_train.losses.criterion import Losses
from student_train.losses.supervision import Supervision
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets
from student_train.parity.golden import Arrays
from student_train.parity.rows import largest_difference, relative_difference


def term_stems(settings: Mapping[str, Any]) -> dict[str, str]:
    """Our terms -> what official keys of a set's losses begin with."""
    kind = settings.get("loss", {}).get("class", "ce")
    if kind == "ia_bce":
        # the official code goes on calling it what it replaced
        kind = "ce"
    return {
        "class": f"loss_{kind}",
        "box": "loss_bbox",
        "giou": "loss_giou",
        "fgl": "loss_fgl",
        "ddf": "loss_ddf",
    }


@dataclass
class Case:
    """One case of a set: its arrays, what is expected, and the leaves that gradients return to."""

    arrays: Arrays
    expected: dict[str, Any]
    settings: Mapping[str, Any]
    """of the whole set: NAME.json"""
    weights: Mapping[str, float]
    """the official `weight_dict`; a key that is not in it has the weight of its stem"""
    leaves: dict[str, Tensor] = field(default_factory=dict)
    """`LAYER/grad_KIND` -> whose gradient that is"""

    def prediction(self, name: str) -> Prediction:
        """One layer, as leaves."""
        return Prediction(self.leaf(name, "logits"), self.leaf(name, "boxes"))

    def leaf(self, name: str, kind: str) -> Tensor:
        """One array of a layer, whose gradient is compared."""
        leaf = torch.from_numpy(self.arrays[f"{name}/{kind}"]).requires_grad_()
        self.leaves[f"{name}/grad_{kind}"] = leaf
        return leaf

    def layers(self, group: str) -> list[Prediction]:
        """`group`layer0, layer1 ..."""
        names = []
        while f"{group}layer{len(names)}/logits" in self.arrays:
            names.append(f"{group}layer{len(names)}")
        return [self.prediction(name) for name in names]

    def targets(self, prefix: str = "") -> list[Targets]:
        """The boxes of every image."""
        found: list[Targets] = []
        while f"target{len(found)}/{prefix}labels" in self.arrays:
            name = f"target{len(found)}/{prefix}"
            labels, boxes = (torch.from_numpy(self.arrays[name + k]) for k in ("labels", "boxes"))
            scores = self.arrays.get(f"{name}scores", np.ones(len(labels), np.float32))
            found.append(Targets(labels, boxes, torch.from_numpy(scores)))
        return found

    def loss_error(self, losses: Losses, source: str, keys: Mapping[str, str]) -> float:
        """Largest relative error of a source's terms; `keys`: our layer -> official key, in which
        {} stands for the term.
        """
        errors = [0.0]
        for layer, pattern in keys.items():
            for term, stem in term_stems(self.settings).items():
                part, key = f"{source}/{term}/{layer}", pattern.format(stem)
                # what one code logs as nothing, the other may leave out
                if part not in losses.parts and not self.expected["losses"].get(key):
                    continue
                want = self.expected["losses"][key] * self.weights[stem]
                got = float(losses.parts[part])
                errors.append(relative_difference(got, want, 1e-1))
        return max(errors)

    def gradient_error(self) -> float:
        """Largest absolute error of the gradients at the leaves."""
        errors = [0.0]
        for stored, leaf in self.leaves.items():
            mine = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            errors.append(largest_difference(mine, self.arrays[stored]))
        return max(errors)


@dataclass(frozen=True)
class Setup:
    """How one case is put to our criterion."""

    criterion: Criterion
    output: StudentOutput
    supervisions: Sequence[Supervision]
    keys: Mapping[str, dict[str, str]]
    """source -> our layer -> official key, see `Case.loss_error`"""
    calls: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """stored matching -> our (source/stack, layer)"""


def layer_keys(layers: int, pattern: str = "{}{}") -> dict[str, str]:
    """Official keys of decoder layers, from a pattern of term and layer; the last layer's key has
    no number.
    """
    numbers = [f"_{i}" for i in range(layers - 1)] + [""]
    return {str(i): pattern.format("{}", number) for i, number in enumerate(numbers)}


def layer_calls(stack: str, layers: int, first: int = 0) -> dict[str, tuple[str, int]]:
    """Official matcher calls of a stack from call `first` on: the last layer, then 0, 1, ..."""
    order = [layers - 1, *range(layers - 1)]
    return {f"match/{first + i}": (stack, layer) for i, layer in enumerate(order)}
