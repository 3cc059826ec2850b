"""RF-DETR (Robinson et al., Roboflow 2025), as its official code computes it (roboflow/rf-detr,
`models/lwdetr.py`): LW-DETR on DINOv2, whose projector has layer norms where LW-DETR's has batch
norms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from student_train.models.backbones.dinov2 import KNOWN, WindowedDinov2, dinov2_shape
from student_train.models.backbones.windows import WindowedShape, WindowedViT
from student_train.models.families.lw_detr.model import LwDetr, LwDetrConfig
from student_train.models.layers.projector import channel_norm


@dataclass(frozen=True, kw_only=True)
class RfDetrConfig(LwDetrConfig):
    """Settings of RF-DETR. The defaults are the official RF-DETR-nano."""

    family: ClassVar[str] = "rf_detr"

    backbone: str = "dinov2_small"
    """dinov2_small, or dinov2_base"""
    patch: int = 16
    """side of a patch in pixels; RF-DETR-base: 14"""
    n_windows: int = 2
    """windows along each side of the image; RF-DETR-base: 4"""
    stages: tuple[int, ...] = (3, 6, 9, 12)
    """blocks whose output is used, counted from 1; RF-DETR-base: 2 5 8 11. The blocks that attend
    over the whole image are those of the same numbers counted from 0, as official"""
    table_side: int = 24
    """rows and columns of the table of positions: the side of the training images in patches;
    RF-DETR-base: 37"""
    decoder_layers: int = 2
    """layers of the decoder, each of which predicts"""

    @property
    def shape(self) -> WindowedShape | None:
        """The sizes of the backbone; None for an unknown one."""
        return dinov2_shape(self.backbone, self.patch, self.n_windows, self.stages)

    def problems(self) -> list[str]:
        """Stages that the backbone has not."""
        problems = super().problems() + self.below_one("patch", "n_windows", "table_side")
        depth = 0 if self.shape is None else self.shape.depth
        rising = list(self.stages) == sorted(set(self.stages))
        if not self.stages or not rising or self.stages[0] < 1 or self.stages[-1] > depth:
            problems.append(
                f"stages must rise from 1 to {depth} at most, as 3 6 9 12, not {self.stages}"
            )
        return problems

    def known_backbones(self) -> str:
        """Names that `backbone` may have, for people."""
        return KNOWN


class RfDetr(LwDetr):
    """LW-DETR with windowed DINOv2."""

    @staticmethod
    def projector_norm(dim: int) -> nn.Module:
        """The norm behind every convolution of the projector."""
        return channel_norm(dim)

    def no_weight_decay(self) -> set[str]:
        """The ViT's biases, norms and embeddings, that of patches included, as official; its
        branch scales do decay.
        """
        return {
            f"backbone.{name}"
            for name, _ in self.backbone.named_parameters()
            if re.search(r"^embedding\.|norm|bias", name)
        }

    def make_backbone(self, config: LwDetrConfig, shape: WindowedShape) -> WindowedViT:
        """The ViT, with fresh weights."""
        assert isinstance(config, RfDetrConfig)
        return WindowedDinov2(shape, config.table_side, config.drop_path, config.checkpointing)
