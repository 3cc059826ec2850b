"""Parity of ViDT."""

from __future__ import annotations

from student_train.models.families.vidt.model import VidtConfig
from student_train.parity.backbones import BACKBONES
from student_train.parity.family import FamilyParity, Settings
from student_train.parity.setups import FOCAL_2, truth


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


PARITY = FamilyParity(
    sets=("vidt",),
    criteria={"criterion_vidt": truth(FOCAL_2)},
    config=_config,
    loss=FOCAL_2,
)
