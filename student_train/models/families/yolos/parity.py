"""Parity of YOLOS."""

from __future__ import annotations

from student_train.losses import LossConfig, MatchCost
from student_train.models.families.yolos.model import YolosConfig
from student_train.parity.backbones import BACKBONES
from student_train.parity.family import FamilyParity, Settings
from student_train.parity.setups import truth


def _config(settings: Settings) -> YolosConfig:
    official = settings["config"]
    height, width = official["init_pe_size"]
    middle = official["mid_pe_size"]
    return YolosConfig(
        backbone=BACKBONES[official["backbone_name"]],
        # the official count is that of the logits
        n_classes=settings["num_classes"] - 1,
        n_queries=official["det_token_num"],
        table_size=(height, width),
        mid_table_size=None if middle is None else (middle[0], middle[1]),
    )


LOSS = LossConfig(classification="softmax", match=MatchCost(class_cost=1), giou_eps=0)
PARITY = FamilyParity(
    sets=("yolos",),
    criteria={"criterion_yolos": truth(LOSS)},
    config=_config,
    loss=LOSS,
)
