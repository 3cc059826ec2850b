"""Presets of D-FINE (Peterande/D-FINE, `configs/dfine`) and DEIM (Intellindust-AI-Lab/DEIM,
`configs/deim_dfine`).
"""

from student_train.config import TrainConfig
from student_train.losses import LossConfig, TeacherLossConfig
from student_train.models.families.d_fine.model import DFineConfig
from student_train.presets.preset import SMALL, SMALLEST, Preset, for_scenes, for_tests

LOSS = LossConfig(
    classification="vfl",
    giou_eps=0,
    pairs="union",
    # proposals are a layer like the others here, with classes of their own
    teacher=TeacherLossConfig(proposals="weighted"),
)


def d_fine_micro() -> TrainConfig:
    """As small as D-FINE gets."""
    model = DFineConfig(**SMALLEST, encoder_dim=32, encoder_ffn_dim=64, depth=1 / 3, dn_number=4)
    return for_tests(model, LOSS)


def d_fine_scenes() -> TrainConfig:
    """A D-FINE that learns scenes on a CPU."""
    model = DFineConfig(**SMALL, encoder_dim=96, encoder_ffn_dim=256, depth=1 / 3, dn_number=20)
    return for_scenes(model, LOSS)


PRESETS = (
    Preset("d-fine-scenes", d_fine_scenes, "a CPU and the scenes of the demo"),
    Preset("d-fine-micro", d_fine_micro, "tests"),
)
