"""Presets of RT-DETRv2 (lyuwenyu/RT-DETR, `rtdetrv2_pytorch/configs/rtdetrv2`)."""

from student_train.config import TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.rtdetr_v2.model import RtDetrV2Config
from student_train.presets.preset import SMALL, SMALLEST, Preset, for_scenes, for_tests

LOSS = LossConfig(classification="vfl", giou_eps=0)


def rtdetrv2_micro() -> TrainConfig:
    """As small as RT-DETRv2 gets."""
    model = RtDetrV2Config(
        **SMALLEST, encoder_dim=32, encoder_ffn_dim=64, expansion=0.5, depth=1 / 3, dn_number=4
    )
    return for_tests(model, LOSS)


def rtdetrv2_scenes() -> TrainConfig:
    """An RT-DETRv2 that learns scenes on a CPU."""
    model = RtDetrV2Config(
        **SMALL, encoder_dim=96, encoder_ffn_dim=256, expansion=0.5, depth=1 / 3, dn_number=20
    )
    return for_scenes(model, LOSS)


PRESETS = (
    Preset("rtdetrv2-scenes", rtdetrv2_scenes, "a CPU and the scenes of the demo"),
    Preset("rtdetrv2-micro", rtdetrv2_micro, "tests"),
)
