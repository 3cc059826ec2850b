"""Parity of Deformable DETR and H-DETR."""

from __future__ import annotations

import torch

from student_train.losses import LossConfig
from student_train.models import DeformableDetrConfig, HDetrConfig, StudentOutput
from student_train.models.families.deformable_detr import DeformableDetr
from student_train.models.families.h_detr import HDetr
from student_train.models.layers.queries import Proposals
from student_train.parity.backbones import BACKBONES
from student_train.parity.family import (
    Arrays,
    FamilyParity,
    Settings,
    compare_layers,
    compare_prediction,
    ending,
)
from student_train.parity.golden import GoldenStudent
from student_train.parity.rows import Row, largest_difference, row, wrong_entries


def _config(settings: Settings) -> DeformableDetrConfig:
    """H-DETR where there is a second set of queries; its code trains the other two as well."""
    official = settings["config"]
    known = {
        "backbone": BACKBONES[official["backbone"]],
        "n_classes": settings["num_classes"],
        "n_queries": official.get("num_queries_one2one", official.get("num_queries")),
        "n_levels": official["num_feature_levels"],
        "dropout": official["dropout"],
        "mixed_selection": official.get("mixed_selection", False),
        "look_forward_twice": official.get("look_forward_twice", False),
        "attention_backend": "torch",
    }
    extra = official.get("num_queries_one2many", 0)
    if extra:
        return HDetrConfig(n_queries_one_to_many=extra, **known)
    return DeformableDetrConfig(**known)


def _proposals(name: str, prefix: str, output: StudentOutput, want: Arrays) -> list[Row]:
    proposals = output.proposals
    assert isinstance(proposals, Proposals)
    rows = compare_prediction(name, f"{prefix}enc/", proposals, want)
    scores = want.get(f"{prefix}enc/logits_class0")
    if scores is not None:
        error = largest_difference(proposals.logits[..., 0], scores)
        rows.append(row(name, f"{prefix}enc/logits_class0", error, 1e-3))
    wrong = wrong_entries(proposals.token_index, want["topk_index"])
    return [*rows, row(name, "topk_index", wrong, 0, "wrong entries")]


def _hybrid(golden: GoldenStudent, student: DeformableDetr) -> list[Row]:
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


DEFORMABLE = FamilyParity(
    config=_config,
    loss=LossConfig(class_loss=2, giou_eps=0),
    loss_key=_loss_key,
    proposals=_proposals,
    evaluation=_hybrid,
)
