"""Presets of DINO."""

from student_train.config import DataConfig, OptimConfig, TrainConfig
from student_train.losses import LossConfig
from student_train.models.families.dino.model import DinoConfig
from student_train.presets.preset import (
    PHOTOS,
    SMALL,
    SMALLEST,
    Preset,
    Published,
    for_photos,
    for_scenes,
    for_tests,
    small_images,
    teach_detr,
)


def dino_r50_4scale() -> TrainConfig:
    """DINO, ResNet-50, 4 scales, 12 epochs (official `DINO_4scale`; box noise 1.0 as its scripts
    set).
    """
    return TrainConfig(
        model=DinoConfig(),
        optim=OptimConfig(drop_epochs=(11,)),
        epochs=12,
    )


def dino_r50_5scale() -> TrainConfig:
    """DINO, ResNet-50, 5 scales (official `DINO_5scale`)."""
    return TrainConfig(
        model=DinoConfig(strides=(4, 8, 16, 32), n_levels=5),
        optim=OptimConfig(drop_epochs=(11,)),
        epochs=12,
    )


def dino_swin_l_384() -> TrainConfig:
    """DINO, Swin-L (ImageNet-22k, 384, window 12), 36 epochs, top 300: the row of the Teach-DETR
    paper.
    """
    return TrainConfig(
        model=DinoConfig(
            backbone="swin_large_patch4_window12_384",
            norm="batch",
            drop_path=0.2,
            checkpointing=True,
        ),
        optim=OptimConfig(drop_epochs=(30,)),
        epochs=36,
    )


def dino_mobilenetv2() -> TrainConfig:
    """A small DINO on MobileNetV2 at 256 px, for a CPU and a few hundred images."""
    model = DinoConfig(**PHOTOS, n_levels=3, encoder_layers=1)
    optim = OptimConfig(lr=4e-4, backbone_lr=1e-4, drop_epochs=(50,))
    squeezed = small_images(256, crop=0.0)
    return for_photos(model, augment=squeezed, optim=optim, data=DataConfig(workers=0))


def dino_demo() -> TrainConfig:
    """A tiny DINO at 144 px, 0.8 M parameters: the student of `teach-detr demo`.

    Its backbone's batch norms are trained, for there are no ImageNet weights behind it.
    """
    return TrainConfig(
        model=DinoConfig(
            backbone="lcnet_050",
            norm="batch",
            n_queries=50,
            n_levels=3,
            dim=96,
            n_heads=3,
            encoder_layers=1,
            decoder_layers=3,
            ffn_dim=256,
            # below 50 it is half the number of groups, each of two queries a box
            dn_number=4,
            top_k=50,
        ),
        data=DataConfig(workers=0, class_space="contiguous"),
        augment=small_images(144, crop=0.0),
        optim=OptimConfig(lr=1e-3, backbone_lr=1e-3, clip=1.0, schedule="cosine", warmup_steps=100),
        epochs=24,
        batch_size=16,
        eval_every=4,
        log_every=25,
    )


def dino_scenes() -> TrainConfig:
    """A DINO that learns scenes on a CPU."""
    # below 50 it is half the number of groups, each of two queries a box
    return for_scenes(DinoConfig(**SMALL, n_levels=3, dn_number=4), LossConfig())


def dino_micro() -> TrainConfig:
    """As small as DINO gets."""
    return for_tests(DinoConfig(**SMALLEST, n_levels=3, dn_number=1), LossConfig())


_README = "README of IDEA-Research/DINO"

PRESETS = (
    Preset(
        "dino-r50-4scale",
        dino_r50_4scale,
        "what most people can afford to train",
        Published(49.0, None, f"{_README}, 12 epochs"),
    ),
    Preset(
        "dino-r50-5scale",
        dino_r50_5scale,
        "finer maps, about twice the time",
        Published(49.4, None, "arXiv 2203.03605, abstract, 12 epochs"),
    ),
    Preset("dino-swin-l-384", dino_swin_l_384, "the best published row", teach_detr(57.8, 58.9)),
    Preset("dino-mobilenetv2", dino_mobilenetv2, "a CPU and a few hundred photos"),
    Preset("dino-demo", dino_demo, "the student of `teach-detr demo`"),
    Preset("dino-scenes", dino_scenes, "a CPU and the scenes of the demo"),
    Preset("dino-micro", dino_micro, "tests"),
)
