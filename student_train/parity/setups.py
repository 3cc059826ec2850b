"""How the cases of each golden set of losses are put to our criterion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from student_train.losses import Criterion, LossConfig, MatchCost, TeacherLossConfig
from student_train.losses.criterion import PROPOSALS
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.targets import Targets
from student_train.parity.case import Case, Setup, layer_calls, layer_keys
from student_train.parity.hybrid import hybrid_key, hybrid_loss
from student_train.parity.iou_aware import iou_aware_loss

FOCAL_2 = LossConfig(class_loss=2, giou_eps=0)
"""of Deformable DETR and those that took over its criterion"""


def of_truth(case: Case, loss: LossConfig, denoising: str = "tgt_{}{}") -> Setup:
    """Ground truth on whatever the case has: decoder layers, the encoder's proposals (`enc`: any
    object, `interm`: its class), denoising and one-to-many queries.

    `denoising` is the pattern of the denoising losses' keys.
    """
    truth, layers = case.targets(), case.layers("main/")
    output = StudentOutput(layers, classification=loss.form)
    keys = {"truth": layer_keys(len(layers))}
    calls = layer_calls("truth/decoder layer", len(layers))
    for kind in ("enc", "interm"):
        if f"{kind}/layer0/logits" in case.arrays:
            output.proposals = case.prediction(f"{kind}/layer0")
            output.proposal_labels = "binary" if kind == "enc" else "class"
            keys["truth"]["proposals"] = f"{{}}_{kind}"
            calls[f"match/{len(calls)}"] = (f"truth/{PROPOSALS}", 0)
    if noisy := case.layers("dn/"):
        groups = case.expected["num_dn_group" if "num_dn_group" in case.expected else "scalar"]
        output.denoising = _denoising(truth, groups, case.expected["pad_size"], noisy)
        keys["denoising"] = layer_keys(len(noisy), denoising)
    if many := case.layers("one2many/"):
        output.one_to_many = many
        keys["one_to_many"] = layer_keys(len(many), "{}{}_one2many")
        calls |= layer_calls("one_to_many/one-to-many layer", len(many), len(calls))
    criterion = Criterion(loss)
    return Setup(criterion, output, criterion.supervise(truth), keys, calls)


def grouped(case: Case) -> Setup:
    """Ground truth on all groups of LW-DETR's queries, as RF-DETR's criterion computes it; one
    group where it was in evaluation mode.
    """
    setup = of_truth(case, iou_aware_loss(case.settings))
    groups = case.settings["groups"] if case.expected["train"] else 1
    keys = setup.keys["truth"] | {"proposals": "{}_enc"}
    output = replace(setup.output, n_groups=groups)
    return replace(setup, output=output, keys={**setup.keys, "truth": keys})


def rt_detr(case: Case) -> Setup:
    """Ground truth on all layers and the selected proposals, and denoising, as RT-DETR has them."""
    setup = of_truth(case, hybrid_loss(case.settings))
    last = len(setup.output.layers) - 1
    keys = {
        source: {layer: hybrid_key("{}", source, layer, last) for layer in layers}
        for source, layers in setup.keys.items()
    }
    return replace(setup, keys=keys)


def _truth(loss: LossConfig) -> Callable[[Case], Setup]:
    return lambda case: of_truth(case, loss)


def dino(case: Case) -> Setup:
    """Ground truth on all layers and the selected proposals, and denoising."""
    return of_truth(case, LossConfig(), denoising="{}_dn{}")


def one_to_many(case: Case) -> Setup:
    """Ground truth on both sets of queries of H-DETR."""
    weight, repeat = case.expected["lambda_one2many"], case.expected["k_one2many"]
    loss = LossConfig(class_loss=2, giou_eps=0, one_to_many=weight, repeat=repeat)
    return of_truth(case, loss)


def teacher(case: Case) -> Setup:
    """One teacher alone, as the released criterion computes it."""
    layers = case.layers("")
    output = StudentOutput(layers, proposal_labels="binary")
    keys = layer_keys(len(layers))
    calls = {f"match/layer{i}": ("teacher:t/decoder layer", i) for i in range(len(layers))}
    if "enc/logits" in case.arrays:
        output.proposals = case.prediction("enc")
        keys["proposals"] = "{}_enc"
        calls["match/enc"] = (f"teacher:t/{PROPOSALS}", 0)
    released = TeacherLossConfig.released()
    criterion = Criterion(
        LossConfig(class_loss=2, giou_eps=0, truth=0, denoising=0, teacher=released)
    )
    supervisions = criterion.supervise([], {"t": case.targets()})
    return Setup(criterion, output, supervisions, {"teacher:t": keys}, calls)


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
            teacher=TeacherLossConfig.released(coefficient=expected["lambda_ensemble"]),
        )
    )
    teachers = {"fused": case.targets("ext_")} if expected["is_ensemble"] else {}
    keys = {
        "truth": layer_keys(len(layers)) | {"proposals": "{}_enc"},
        "one_to_many": layer_keys(len(layers), "{}{}_one2many"),
    }
    if teachers:
        fused = layer_keys(len(layers), "{}{}_ensemble")
        keys["teacher:fused"] = fused | {"proposals": "{}_enc_ensemble"}
    return Setup(criterion, output, criterion.supervise(case.targets(), teachers), keys)


SETUPS: dict[str, Callable[[Case], Setup]] = {
    "criterion_dino": dino,
    "criterion_deformable": _truth(FOCAL_2),
    "criterion_hdetr_hybrid": one_to_many,
    "criterion_conditional": _truth(FOCAL_2),
    "criterion_dab": _truth(LossConfig()),
    "criterion_dn": _truth(LossConfig(denoising_background=0)),
    "criterion_vidt": _truth(FOCAL_2),
    "criterion_yolos": _truth(
        LossConfig(classification="softmax", giou_eps=0, match=MatchCost(class_cost=1))
    ),
    "criterion_iabce": grouped,
    "criterion_rtdetrv2": rt_detr,
    "teach_criterion": teacher,
    "teach_hybrid": hybrid,
}
"""by the name of the set, or what stands before its last underscores"""


def setup_of(name: str) -> Callable[[Case], Setup] | None:
    """How the cases of a set are put, by its name; None for a set of other losses."""
    while name not in SETUPS and "_" in name:
        name = name.rpartition("_")[0]
    return SETUPS.get(name)


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
