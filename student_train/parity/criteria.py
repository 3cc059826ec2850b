"""The losses alone against golden sets, on random predictions: terms, gradients, matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from student_train.losses import Criterion, LossConfig, TeacherLossConfig
from student_train.losses.criterion import PROPOSALS, Losses
from student_train.losses.supervision import Supervision
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.targets import Targets
from student_train.parity.golden import Arrays, read_arrays, read_json
from student_train.parity.rows import (
    Row,
    largest_difference,
    relative_difference,
    row,
    wrong_pairs,
)

LOSSES, GRADIENTS = 1e-5, 1e-5
_TERMS = {"class": "loss_ce", "box": "loss_bbox", "giou": "loss_giou"}


@dataclass
class Case:
    """One case of a set: its arrays, what is expected, and the leaves that gradients return to."""

    arrays: Arrays
    expected: dict[str, Any]
    weights: Mapping[str, float]
    """the official `weight_dict`; a key that is not in it has the weight of its stem"""
    leaves: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def prediction(self, name: str) -> Prediction:
        """One layer, as leaves."""
        logits = torch.from_numpy(self.arrays[f"{name}/logits"]).requires_grad_()
        boxes = torch.from_numpy(self.arrays[f"{name}/boxes"]).requires_grad_()
        self.leaves[name] = (logits, boxes)
        return Prediction(logits, boxes)

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

    def loss_error(self, losses: Losses, source: str, endings: Mapping[str, str]) -> float:
        """Largest relative error of a source's terms; `endings`: our layer -> official ending."""
        errors = [0.0]
        for layer, ending in endings.items():
            for term, key in _TERMS.items():
                want = self.expected["losses"][key + ending] * self.weights[key]
                got = float(losses.parts[f"{source}/{term}/{layer}"])
                errors.append(relative_difference(got, want, 1e-1))
        return max(errors)

    def gradient_error(self) -> float:
        """Largest absolute error of the gradients at the leaves."""
        errors = [0.0]
        for name, leaves in self.leaves.items():
            for kind, leaf in zip(("grad_logits", "grad_boxes"), leaves, strict=True):
                mine = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                errors.append(largest_difference(mine, self.arrays[f"{name}/{kind}"]))
        return max(errors)


@dataclass(frozen=True)
class Setup:
    """How one case is put to our criterion."""

    criterion: Criterion
    output: StudentOutput
    supervisions: Sequence[Supervision]
    endings: Mapping[str, Mapping[str, str]]
    """source -> our layer -> official ending"""
    calls: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """stored matching -> our (source/stack, layer)"""


def endings(layers: int, tail: str = "", proposals: str | None = None) -> dict[str, str]:
    """Official key endings of decoder layers; the last layer's key has no number."""
    found = {str(i): f"_{i}{tail}" for i in range(layers - 1)} | {str(layers - 1): tail}
    return found if proposals is None else found | {"proposals": proposals}


def dino(case: Case) -> Setup:
    """Ground truth on all layers and the selected proposals, and denoising."""
    truth = case.targets()
    groups, slots = case.expected["num_dn_group"], case.expected["pad_size"]
    layers = case.layers("main/")
    output = StudentOutput(
        layers,
        proposals=case.prediction("interm/layer0"),
        denoising=_denoising(truth, groups, slots, case.layers("dn/")),
    )
    criterion = Criterion(LossConfig())
    last = len(layers) - 1
    order = [last, *range(last)]
    calls = {f"match/{i}": ("truth/decoder layer", layer) for i, layer in enumerate(order)}
    calls[f"match/{last + 1}"] = (f"truth/{PROPOSALS}", 0)
    denoising = {str(i): f"_dn_{i}" for i in range(last)} | {str(last): "_dn"}
    return Setup(
        criterion,
        output,
        criterion.supervise(truth),
        {"truth": endings(len(layers), proposals="_interm"), "denoising": denoising},
        calls,
    )


def teacher(case: Case) -> Setup:
    """One teacher alone, as the released criterion computes it."""
    layers = case.layers("")
    output = StudentOutput(layers, proposal_labels="binary")
    if "enc/logits" in case.arrays:
        output.proposals = case.prediction("enc")
    released = TeacherLossConfig(giou_form="released")
    criterion = Criterion(
        LossConfig(class_loss=2, giou_eps=0, truth=0, denoising=0, teacher=released)
    )
    calls = {f"match/layer{i}": ("teacher:t/decoder layer", i) for i in range(len(layers))}
    if output.proposals is not None:
        calls["match/enc"] = (f"teacher:t/{PROPOSALS}", 0)
    tail = None if output.proposals is None else "_enc"
    return Setup(
        criterion,
        output,
        criterion.supervise([], {"t": case.targets()}),
        {"teacher:t": endings(len(layers), proposals=tail)},
        calls,
    )


def hybrid(case: Case) -> Setup:
    """Ground truth, one-to-many queries and a teacher together."""
    expected = case.expected
    layers = case.layers("one2one/")
    output = StudentOutput(
        layers,
        proposals=case.prediction("enc"),
        proposal_labels="binary",
        one_to_many=case.layers("one2many/"),
    )
    criterion = Criterion(
        LossConfig(
            class_loss=2,
            giou_eps=0,
            one_to_many=expected["lambda_one2many"],
            repeat=expected["k_one2many"],
            teacher=TeacherLossConfig(
                coefficient=expected["lambda_ensemble"], giou_form="released"
            ),
        )
    )
    teachers = {"fused": case.targets("ext_")} if expected["is_ensemble"] else {}
    sources = {
        "truth": endings(len(layers), proposals="_enc"),
        "one_to_many": endings(len(layers), "_one2many"),
    }
    if teachers:
        sources["teacher:fused"] = endings(len(layers), "_ensemble", "_enc_ensemble")
    return Setup(criterion, output, criterion.supervise(case.targets(), teachers), sources)


_SETUPS = {"criterion_dino": dino, "teach_criterion": teacher, "teach_hybrid": hybrid}
CRITERIA = tuple(_SETUPS)
"""sets that `check_criterion` compares"""


def check_criterion(folder: Path, name: str) -> list[Row]:
    """Every case of one set of losses."""
    arrays, document = read_arrays(folder / f"{name}.npz"), read_json(folder / f"{name}.json")
    weights = document.get("weight_dict", {"loss_ce": 2, "loss_bbox": 5, "loss_giou": 2})
    rows: list[Row] = []
    for expected in document["cases"]:
        prefix = f"{expected['case']}/"
        mine = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        case = Case(mine, expected, weights)
        rows += _check_case(name, case, _SETUPS[name](case))
    return rows


def _check_case(name: str, case: Case, setup: Setup) -> list[Row]:
    label, kind = case.expected["case"], case.expected["kind"]
    losses = setup.criterion(setup.output, setup.supervisions)
    losses.total.backward()
    rows = []
    for source, tails in setup.endings.items():
        error = case.loss_error(losses, source, tails)
        rows.append(row(name, f"{label}/losses/{source}", error, LOSSES, f"{kind}; relative"))
    total = relative_difference(float(losses.total.detach()), case.expected["total"])
    rows.append(row(name, f"{label}/losses/total", total, LOSSES, f"{kind}; relative"))
    rows.append(row(name, f"{label}/gradients", case.gradient_error(), GRADIENTS, kind))
    if setup.calls:
        found = setup.criterion.matches(setup.output, setup.supervisions)
        wrong = 0
        for stored, (stack, layer) in setup.calls.items():
            for image, (query, target) in enumerate(found[stack][layer]):
                pairs = zip(query.tolist(), target.tolist(), strict=True)
                wrong += wrong_pairs(pairs, case.arrays[f"{stored}/{image}"])
        rows.append(row(name, f"{label}/matching", float(wrong), 0, f"{kind}; wrong pairs"))
    return rows


def _denoising(
    targets: list[Targets], groups: int, slots: int, layers: list[Prediction]
) -> Denoising:
    """Positive slots of the official layout: target j of group g in slot g x stride + j."""
    stride = slots // groups
    places = [
        (image, group * stride + j, j)
        for group in range(groups)
        for image, each in enumerate(targets)
        for j in range(len(each))
    ]
    image, slot, target = torch.tensor(places, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Denoising(layers, image, slot, target, groups, slots)
