"""Parity of LW-DETR and RF-DETR."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from student_train.models.families.lw_detr.model import LwDetrConfig
from student_train.models.families.lw_detr.sizes import SIZES
from student_train.parity.case import Case, Setup
from student_train.parity.family import (
    BOXES,
    FamilyParity,
    Settings,
    chosen_proposals,
)
from student_train.parity.golden import GoldenStudent
from student_train.parity.iou_aware import iou_aware_loss
from student_train.parity.rows import Row, largest_difference, row
from student_train.parity.setups import of_truth


def config_fields(settings: Settings) -> dict[str, Any]:
    """What sets of both families say beside their size."""
    official = settings["config"]
    return {
        "n_classes": settings["num_classes"],
        "n_queries": official["num_queries"],
        "n_groups": official["group_detr"],
        # every set was made without it
        "drop_path": 0.0,
        "attention_backend": "torch",
    }


def _config(settings: Settings) -> LwDetrConfig:
    return LwDetrConfig(**SIZES[settings["config"]["size"]] | config_fields(settings))


def evaluation(golden: GoldenStudent, student: Any) -> list[Row]:
    """The scores that tokens are chosen by, and the references that all layers share."""
    want, name = golden.outputs, golden.name
    seen: dict[str, torch.Tensor] = {}
    handles = [
        student.queries.heads[0].classes.register_forward_hook(
            lambda _m, _i, out: seen.update(scores=out.amax(-1))
        ),
        student.queries.register_forward_hook(lambda _m, _i, out: seen.update(boxes=out.boxes)),
    ]
    with torch.no_grad():
        student(*golden.batch())
    for handle in handles:
        handle.remove()
    scores = largest_difference(seen["scores"], want["enc/max_logit"])
    boxes = largest_difference(seen["boxes"], want["ref_initial"])
    return [
        row(name, "enc/max_logit", scores, 1e-3),
        row(name, "ref_initial", boxes, BOXES),
    ]


def _criterion(case: Case) -> Setup:
    """Ground truth on all groups of queries, as RF-DETR's criterion computes it; one group where it
    was in evaluation mode.
    """
    setup = of_truth(case, iou_aware_loss(case.settings))
    groups = case.settings["groups"] if case.expected["train"] else 1
    keys = setup.keys["truth"] | {"proposals": "{}_enc"}
    output = replace(setup.output, n_groups=groups)
    return replace(setup, output=output, keys={**setup.keys, "truth": keys})


PARITY = FamilyParity(
    sets=("lwdetr",),
    criteria={"criterion_iabce": _criterion},
    config=_config,
    loss=iou_aware_loss,
    proposals=chosen_proposals,
    evaluation=evaluation,
)
