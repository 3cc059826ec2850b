"""Parity of Deformable DETR."""

from __future__ import annotations

from typing import Any

from student_train.models import DeformableDetrConfig, StudentOutput
from student_train.models.layers.queries import Proposals
from student_train.parity.backbones import BACKBONES
from student_train.parity.family import Arrays, FamilyParity, Settings, compare_prediction
from student_train.parity.rows import Row, largest_difference, row, wrong_entries
from student_train.parity.setups import FOCAL_2, truth


def settings_of(settings: Settings) -> dict[str, Any]:
    """What the official code of H-DETR says in the same words."""
    official = settings["config"]
    return {
        "backbone": BACKBONES[official["backbone"]],
        "n_classes": settings["num_classes"],
        "n_queries": official.get("num_queries_one2one", official.get("num_queries")),
        "n_levels": official["num_feature_levels"],
        "dropout": official["dropout"],
        "mixed_selection": official.get("mixed_selection", False),
        "look_forward_twice": official.get("look_forward_twice", False),
        "attention_backend": "torch",
    }


def compare_proposals(name: str, prefix: str, output: StudentOutput, want: Arrays) -> list[Row]:
    """The encoder's predictions at all tokens, and which tokens were selected."""
    proposals = output.proposals
    assert isinstance(proposals, Proposals)
    rows = compare_prediction(name, f"{prefix}enc/", proposals, want)
    scores = want.get(f"{prefix}enc/logits_class0")
    if scores is not None:
        error = largest_difference(proposals.logits[..., 0], scores)
        rows.append(row(name, f"{prefix}enc/logits_class0", error, 1e-3))
    wrong = wrong_entries(proposals.token_index, want["topk_index"])
    return [*rows, row(name, "topk_index", wrong, 0, "wrong entries")]


PARITY = FamilyParity(
    sets=("deformable",),
    criteria={"criterion_deformable": truth(FOCAL_2)},
    config=lambda settings: DeformableDetrConfig(**settings_of(settings)),
    loss=FOCAL_2,
    proposals=compare_proposals,
)
