"""Parity of RF-DETR."""

from __future__ import annotations

from student_train.models.families.lw_detr.parity import (
    config_fields,
    evaluation,
)
from student_train.models.families.rf_detr.model import RfDetrConfig
from student_train.models.families.rf_detr.sizes import SIZES
from student_train.parity.family import FamilyParity, Settings, chosen_proposals
from student_train.parity.iou_aware import iou_aware_loss


def _config(settings: Settings) -> RfDetrConfig:
    return RfDetrConfig(**SIZES[settings["config"]["size"]] | config_fields(settings))


PARITY = FamilyParity(
    sets=("rfdetr",),
    config=_config,
    loss=iou_aware_loss,
    proposals=chosen_proposals,
    evaluation=evaluation,
    # the table of positions is resized in float32
    rounding=1e-7,
)
