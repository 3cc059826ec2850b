"""Backbones: timm's, and Swin with the official detection padding, as lists of feature maps of
chosen strides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from box_store.errors import nearest
from student_train.errors import ConfigError
from student_train.models.backbones.backbone_weights import load_backbone_weights
from student_train.models.backbones.frozen_norm import freeze_batch_norms
from student_train.models.backbones.swin import Swin, SwinShape, SwinStage


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """The part of a student that may start from ImageNet weights."""

    backbone: str = "resnet50"
    """name of the backbone: resnet50, swin_large_patch4_window12_384, mobilenetv2_100 ..."""
    backbone_weights: str | None = None
    """file of pretrained weights (torchvision, timm or the official code's), or `timm` to download
    timm's own
    """
    drop_path: float = 0.0
    """stochastic depth, rising to this rate in the last block"""
    checkpointing: bool = False
    """compute activations of Swin, ViT, encoder and decoder twice to save memory"""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(TrunkConfig):
    """Settings of a backbone that gives feature maps."""

    strides: tuple[int, ...] = (8, 16, 32)
    """strides of the maps taken from it"""
    output_stride: int = 32
    """16 dilates the last stage instead of halving its map (DC5)"""
    norm: str = "frozen"
    """frozen: batch norms keep the statistics and scales of their weights file; batch: they are
    trained
    """
    frozen_stages: int | None = None
    """stages that are not trained, counted from the input (1: the stem and the stage of stride 4);
    none: the official choice, 1 for ResNets with frozen norms and 0 otherwise"""
    frozen_stem: bool = False
    """what stands before the first stage is not trained either, where no stage is frozen"""

    def backbone_problems(self) -> list[str]:
        """One sentence for every setting that cannot be used."""
        problems = []
        if self.norm not in ("frozen", "batch"):
            problems.append(f"norm must be frozen or batch, not {self.norm!r}")
        if not self.strides or list(self.strides) != sorted(self.strides):
            problems.append(f"strides must rise, as 8 16 32, not {self.strides}")
        if self.output_stride not in (8, 16, 32):
            problems.append(f"output_stride must be 8, 16 or 32, not {self.output_stride}")
        if self.frozen_stages is not None and not 0 <= self.frozen_stages <= 4:
            problems.append(f"frozen_stages must lie in 0..4, not {self.frozen_stages}")
        if not 0 <= self.drop_path < 1:
            problems.append(f"drop_path must lie in 0..1, not {self.drop_path}")
        return problems


# RT-DETR's ResNet-D of basic blocks (PResNet): timm's, with a 1x1 shortcut also in stage 1, where
# size and width stay
_PRESNETS = {"presnet18": "resnet18d", "presnet34": "resnet34d"}


class Backbone(nn.Module):
    """`body` is timm's feature extractor or `Swin`; `channels` and `strides` describe the maps it
    returns.
    """

    def __init__(self, config: BackboneConfig) -> None:
        """Builds with random weights, then loads `config.backbone_weights` if given.

        Raises ConfigError for an unknown name or stride, CheckpointError for weights that do not
        fit.
        """
        super().__init__()
        swin = SwinShape.parse(config.backbone)
        if swin is not None:
            self.body, self.channels = _swin(config, swin)
        else:
            self.body, self.channels = _timm(config)
        self.strides = config.strides
        if config.backbone_weights is not None:
            load_backbone_weights(self.body, config.backbone, config.backbone_weights)
        if config.norm == "frozen":
            freeze_batch_norms(self.body)
        frozen = _frozen_stages(config)
        if frozen or config.frozen_stem:
            for parameter in _first_stages(self.body, frozen):
                parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] to maps [B, C_i, ceil(H / s_i), ceil(W / s_i)]."""
        return self.body(images)


def _swin(config: BackboneConfig, shape: SwinShape) -> tuple[Swin, tuple[int, ...]]:
    known = (4, 8, 16, 32)
    _check_strides(config, known)
    stages = tuple(known.index(stride) for stride in config.strides)
    body = Swin(shape, stages, config.drop_path, config.checkpointing)
    return body, tuple(shape.dim * 2**stage for stage in stages)


def _timm(config: BackboneConfig) -> tuple[nn.Module, tuple[int, ...]]:
    name = _PRESNETS.get(config.backbone, config.backbone)
    if not timm.is_model(name):
        known = [*timm.list_models(), *_PRESNETS]
        raise ConfigError([f"timm has no backbone named {name!r}.{nearest(name, known)}"])
    options: dict[str, Any] = {"features_only": True, "pretrained": False}
    if config.output_stride != 32:
        options["output_stride"] = config.output_stride
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    try:
        # on the meta device nothing is computed: this only asks which map has which stride
        with torch.device("meta"):
            info = _feature_info(timm.create_model(name, **options))
    except (RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
        raise ConfigError([f"timm's {name} cannot serve as a backbone: {error}"]) from error
    reductions = info.reduction()
    _check_strides(config, reductions)
    # with dilation two stages share a stride: the later one is meant
    last = {stride: i for i, stride in enumerate(reductions)}
    indices = tuple(last[stride] for stride in config.strides)
    body = timm.create_model(name, out_indices=indices, **options)
    if config.backbone in _PRESNETS:
        first = body.get_submodule("layer1.0")
        width = first.get_parameter("conv1.weight").shape[1]
        first.downsample = nn.Sequential(
            nn.Identity(), nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)
        )
    return body, tuple(_feature_info(body).channels())


def _check_strides(config: BackboneConfig, known: tuple[int, ...] | list[int]) -> None:
    missing = [stride for stride in config.strides if stride not in known]
    if missing:
        has = ", ".join(map(str, dict.fromkeys(known)))
        raise ConfigError([f"{config.backbone} has maps of strides {has}, not {missing[0]}"])


def _frozen_stages(config: BackboneConfig) -> int:
    if config.frozen_stages is not None:
        return config.frozen_stages
    return int(config.backbone.startswith("resnet") and config.norm == "frozen")


def _first_stages(body: nn.Module, count: int) -> list[nn.Parameter]:
    """Parameters up to the end of the stage whose map has stride 4 x 2^(count - 1), in order of
    execution; of the stem for 0.
    """
    if isinstance(body, Swin):
        stages = [stage for stage in body.layers if isinstance(stage, SwinStage)][:count]
        # the halving after the last frozen stage belongs to the next
        parts = [body.patch_embed, *stages[:-1], *(stage.blocks for stage in stages[-1:])]
        return [p for part in parts for p in part.parameters()]
    ends = tuple(
        f"{stage['module']}.".replace(".", "_")
        for stage in _feature_info(body).info
        if stage["reduction"] <= 4 * 2 ** (count - 1)
    )
    # timm joins the names of flattened stages with an underscore
    named = [(key.replace(".", "_"), parameter) for key, parameter in body.named_parameters()]
    last = max((i for i, (key, _) in enumerate(named) if key.startswith(ends)), default=-1)
    if count == 0:
        # what ends the stem may be an activation, which has no parameters: look for what follows
        first = next(f"{s['module']}." for s in _feature_info(body).info if s["reduction"] > 2)
        later = [i for i, (key, _) in enumerate(named) if key.startswith(first.replace(".", "_"))]
        last = min(later, default=0) - 1
    return [parameter for _, parameter in named[: last + 1]]


def _feature_info(body: nn.Module) -> Any:
    """timm's description of the maps; not part of its types."""
    return body.feature_info
