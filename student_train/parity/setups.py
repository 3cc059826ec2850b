"""How cases of golden sets of losses are put to our criterion: what families share, and those
of teachers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from student_train.losses import Criterion, LossConfig, TeacherLossConfig
from student_train.losses.criterion import PROPOSALS
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.targets import Targets
from student_train.parity.case import Case, Setup, layer_calls, layer_keys

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


def truth(loss: LossConfig) -> Callable[[Case], Setup]:
    """`of_truth` with a loss."""
    return lambda case: of_truth(case, loss)


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
    "teach_criterion": teacher,
    "teach_hybrid": hybrid,
}
"""of teachers' losses, by the name of the set; a family has its own (`FamilyParity.criteria`)"""


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
