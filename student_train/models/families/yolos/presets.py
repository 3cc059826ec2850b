"""Presets of YOLOS.

All parameters learn at one rate. A step has 8 images; the short sides are more closely spaced than
DETR's (hustvl/YOLOS, `datasets/coco.py`).
"""

from student_train.config import AugmentConfig, OptimConfig, TrainConfig
from student_train.losses import LossConfig, MatchCost
from student_train.models.families.yolos.model import YolosConfig
from student_train.presets.preset import Preset, Published, for_scenes, for_tests, teach_detr

LOSS = LossConfig(classification="softmax", match=MatchCost(class_cost=1), giou_eps=0)


def yolos_small() -> TrainConfig:
    """YOLOS-S: DeiT-S, 150 epochs, evaluated at 800 px."""
    return TrainConfig(
        model=YolosConfig(),
        loss=LOSS,
        augment=AugmentConfig(short_sides=tuple(range(480, 801, 16))),
        optim=_one_rate(2.5e-5),
        epochs=150,
        batch_size=8,
    )


def yolos_tiny() -> TrainConfig:
    """YOLOS-Ti: DeiT-tiny, 300 epochs, evaluated at 512 px."""
    return TrainConfig(
        model=YolosConfig(
            backbone="deit_tiny_patch16_224", table_size=(800, 1333), mid_table_size=None
        ),
        loss=LOSS,
        augment=AugmentConfig(
            short_sides=tuple(range(256, 609, 16)),
            long_side=608 * 1333 // 800,
            eval_short_side=512,
            eval_long_side=512 * 1333 // 800,
        ),
        optim=_one_rate(5e-5),
        epochs=300,
        batch_size=16,
    )


def _one_rate(lr: float) -> OptimConfig:
    return OptimConfig(lr=lr, backbone_lr=lr, schedule="cosine", min_lr=1e-7)


def yolos_micro() -> TrainConfig:
    """As small as YOLOS gets."""
    model = YolosConfig(
        backbone="deit_test_patch16_224",
        n_queries=20,
        table_size=(64, 64),
        mid_table_size=(64, 64),
        top_k=20,
    )
    return for_tests(model, LOSS)


def yolos_scenes() -> TrainConfig:
    """A YOLOS that learns scenes on a CPU."""
    model = YolosConfig(
        backbone="deit_test_patch8_224",
        n_queries=50,
        table_size=(128, 128),
        mid_table_size=None,
        top_k=50,
    )
    return for_scenes(model, LOSS)


PRESETS = (
    Preset(
        "yolos-small",
        yolos_small,
        "a plain ViT and nothing else",
        teach_detr(35.6, 38.0),
    ),
    Preset(
        "yolos-tiny",
        yolos_tiny,
        "the same, smaller",
        Published(28.7, None, "README of hustvl/YOLOS"),
    ),
    Preset("yolos-scenes", yolos_scenes, "a CPU and the scenes of the demo"),
    Preset("yolos-micro", yolos_micro, "tests"),
)
