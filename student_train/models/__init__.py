"""Students: DETR-type detectors that share one output type, one post-processing and the parts they
are built from.

`build_student(config)` makes the student that a configuration describes; `StudentOutput` says what
it returns, `Targets` what it is compared with, `top_k` turns its output into detections.
"""

from torch import nn

from student_train.errors import ConfigError
from student_train.models.dino import Dino, DinoConfig
from student_train.models.output import Denoising, Prediction, StudentOutput
from student_train.models.postprocess import Detections, top_k
from student_train.models.targets import Targets

StudentConfig = DinoConfig
"""every configuration that `build_student` knows"""

_FAMILIES: dict[type, type[nn.Module]] = {DinoConfig: Dino}


def build_student(config: StudentConfig) -> nn.Module:
    """The student of `config`, with fresh weights (and its backbone's, where `backbone_weights`
    names them).

    Raises ConfigError for a configuration of no known family.
    """
    family = _FAMILIES.get(type(config))
    if family is None:
        known = ", ".join(cls.__name__ for cls in _FAMILIES)
        raise ConfigError([f"no student is built from a {type(config).__name__}; known: {known}"])
    return family(config)


__all__ = [
    "Denoising",
    "Detections",
    "Dino",
    "DinoConfig",
    "Prediction",
    "StudentConfig",
    "StudentOutput",
    "Targets",
    "build_student",
    "top_k",
]
