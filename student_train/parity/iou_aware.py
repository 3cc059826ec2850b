"""The loss of LW-DETR and RF-DETR, as golden sets describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.losses import LossConfig, MatchCost


def iou_aware_loss(settings: Mapping[str, Any]) -> LossConfig:
    """The loss as a set describes it."""
    said = settings["loss"]
    matcher, weights = said["matcher"], said["weight_dict"]
    return LossConfig(
        classification="ia_bce",
        class_loss=weights["loss_ce"],
        l1_loss=weights["loss_bbox"],
        giou_loss=weights["loss_giou"],
        match=MatchCost(
            matcher["cost_class"],
            matcher["cost_bbox"],
            matcher["cost_giou"],
            matcher["alpha"],
            matcher["gamma"],
            # those numbers were made with RF-DETR's criterion, which adds nothing
            log_eps=0.0,
        ),
        quality_alpha=said["alpha"],
        quality_gamma=said.get("gamma"),
        groups="sum" if said["sum_group_losses"] else "mean",
        giou_eps=0,
    )
