"""Students: DETR-type detectors that share one output type, one post-processing and the parts they
are built from.

`build_student(config)` makes the student that a configuration describes; `StudentOutput` says what
it returns, `Targets` what it is compared with, `top_k` turns its output into detections.
`FAMILIES` lists them; each has a folder of its own name (see `student_train.models.family`).
"""

from box_store.errors import nearest
from student_train.errors import ConfigError
from student_train.models.config import StudentConfig
from student_train.models.families import FAMILIES
from student_train.models.families.conditional_detr.model import (
    ConditionalDetr,
    ConditionalDetrConfig,
)
from student_train.models.families.d_fine.model import DFine, DFineConfig
from student_train.models.families.dab_detr.model import DabDetr, DabDetrConfig
from student_train.models.families.deformable_detr.model import (
    DeformableDetr,
    DeformableDetrConfig,
)
from student_train.models.families.dino.model import Dino, DinoConfig
from student_train.models.families.dn_detr.model import DnDetr, DnDetrConfig
from student_train.models.families.h_detr.model import HDetr, HDetrConfig
from student_train.models.families.lw_detr.model import LwDetr, LwDetrConfig
from student_train.models.families.rf_detr.model import RfDetr, RfDetrConfig
from student_train.models.families.rtdetr_v2.model import RtDetrV2, RtDetrV2Config
from student_train.models.families.vidt.model import Vidt, VidtConfig
from student_train.models.families.yolos.model import Yolos, YolosConfig
from student_train.models.family import Family
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.postprocess import Detections, top_k
from student_train.models.student import Student
from student_train.models.targets import Targets


def family_of(name: str) -> Family:
    """A family by its name.

    Raises ConfigError for an unknown one; the nearest is suggested.
    """
    if name not in FAMILIES:
        raise ConfigError(
            [
                f"no family of students is named {name!r}.{nearest(name, FAMILIES)} "
                f"The families are: {', '.join(FAMILIES)}"
            ]
        )
    return FAMILIES[name]


def build_student(config: StudentConfig) -> Student:
    """The student of `config`, with fresh weights (and its backbone's, where `backbone_weights`
    names them).

    Raises ConfigError for a configuration of no known family.
    """
    for family in FAMILIES.values():
        if type(config) is family.config:
            return family.student(config)
    known = ", ".join(family.config.__name__ for family in FAMILIES.values())
    raise ConfigError([f"no student is built from a {type(config).__name__}; known: {known}"])


__all__ = [
    "FAMILIES",
    "ConditionalDetr",
    "ConditionalDetrConfig",
    "DFine",
    "DFineConfig",
    "DabDetr",
    "DabDetrConfig",
    "DeformableDetr",
    "DeformableDetrConfig",
    "Denoising",
    "Detections",
    "Dino",
    "DinoConfig",
    "DnDetr",
    "DnDetrConfig",
    "Family",
    "HDetr",
    "HDetrConfig",
    "LwDetr",
    "LwDetrConfig",
    "Prediction",
    "RfDetr",
    "RfDetrConfig",
    "RtDetrV2",
    "RtDetrV2Config",
    "Student",
    "StudentConfig",
    "StudentOutput",
    "Targets",
    "Vidt",
    "VidtConfig",
    "Yolos",
    "YolosConfig",
    "build_student",
    "family_of",
    "top_k",
]
