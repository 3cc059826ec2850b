"""Parity of DAB-DETR."""

from __future__ import annotations

from student_train.losses import LossConfig
from student_train.models.families.conditional_detr.parity import sizes_of
from student_train.models.families.dab_detr.model import DabDetrConfig
from student_train.parity.family import FamilyParity, Settings
from student_train.parity.setups import truth


def _config(settings: Settings) -> DabDetrConfig:
    official = settings["config"]
    return DabDetrConfig(
        **sizes_of(settings),
        temperature=official["pe_temperatureH"],
        n_patterns=official["num_patterns"],
    )


PARITY = FamilyParity(
    sets=("dab",),
    criteria={"criterion_dab": truth(LossConfig())},
    config=_config,
    loss=LossConfig(),
)
