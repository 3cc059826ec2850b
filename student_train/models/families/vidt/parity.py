"""Parity of ViDT."""

from __future__ import annotations

from student_train.losses import LossConfig
from student_train.models.families.vidt import VidtConfig
from student_train.parity.backbones import BACKBONES
from student_train.parity.family import FamilyParity, Settings


def _config(settings: Settings) -> VidtConfig:
    official = settings["config"]
    return VidtConfig(
        backbone=BACKBONES[official["backbone_name"]],
        n_classes=settings["num_classes"],
        n_queries=official["det_token_num"],
        dim=official["reduced_dim"],
        n_heads=official["nheads"],
        decoder_layers=official["dec_layers"],
        ffn_dim=official["dim_feedforward"],
        n_points=official["dec_n_points"],
        dropout=official["dropout"],
        # every set was made without it
        drop_path=0.0,
        attention_backend="torch",
    )


VIDT = FamilyParity(config=_config, loss=LossConfig(class_loss=2, giou_eps=0))
