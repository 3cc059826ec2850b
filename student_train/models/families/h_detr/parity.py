"""Parity of H-DETR, whose official code trains plain Deformable DETR as well."""

from __future__ import annotations

import torch

from student_train.losses import LossConfig
from student_train.models import DeformableDetrConfig, HDetr, HDetrConfig, Student
from student_train.models.families.deformable_detr.parity import compare_proposals, settings_of
from student_train.models.layers.queries import Proposals
from student_train.parity.case import Case, Setup
from student_train.parity.family import FamilyParity, Settings, compare_layers, ending
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, row, wrong_entries
from student_train.parity.setups import FOCAL_2, of_truth


def _config(settings: Settings) -> DeformableDetrConfig:
    """H-DETR where there is a second set of queries."""
    extra = settings["config"].get("num_queries_one2many", 0)
    known = settings_of(settings)
    return (
        HDetrConfig(n_queries_one_to_many=extra, **known)
        if extra
        else DeformableDetrConfig(**known)
    )


def _hybrid(golden: GoldenStudent, student: Student) -> list[Row]:
    """Both sets of queries, in training mode: there is no dropout in golden sets."""
    if not isinstance(student, HDetr):
        return []
    want, name = golden.outputs, golden.name
    with torch.no_grad():
        output = student.train()(*golden.batch())
    student.eval()
    proposals = output.proposals
    assert isinstance(proposals, Proposals)
    assert output.one_to_many is not None
    rows = compare_layers(name, "hybrid/", output.layers, want)
    rows += compare_layers(name, "hybrid/one2many/", output.one_to_many, want)
    wrong = wrong_entries(proposals.token_index, want["hybrid/topk_index"])
    return [*rows, row(name, "hybrid/topk_index", wrong, 0, "wrong entries")]


def _loss_key(stem: str, source: str, layer: str, last: int) -> str:
    if layer == "proposals":
        return f"{stem}_enc"
    return f"{stem}{ending(layer, last)}{'_one2many' if source == 'one_to_many' else ''}"


def _criterion(case: Case) -> Setup:
    """Ground truth on both sets of queries."""
    weight, repeat = case.expected["lambda_one2many"], case.expected["k_one2many"]
    loss = LossConfig(class_loss=2, giou_eps=0, one_to_many=weight, repeat=repeat)
    return of_truth(case, loss)


PARITY = FamilyParity(
    sets=("hdetr",),
    criteria={"criterion_hdetr_hybrid": _criterion},
    config=_config,
    loss=FOCAL_2,
    loss_key=_loss_key,
    proposals=compare_proposals,
    evaluation=_hybrid,
)
