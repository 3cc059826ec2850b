"""RT-DETRv2 (Lv et al., arXiv 2407.17140), as the official code computes it
(lyuwenyu/RT-DETR, `rtdetrv2_pytorch/src/zoo/rtdetr`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from student_train.models.config import SamplingConfig
from student_train.models.hybrid import ACTIVATIONS, HybridConfig, HybridStudent
from student_train.models.layers.decoder import DeformableDecoder
from student_train.models.layers.denoising import Noise
from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.hybrid_encoder import rt_detr_parts
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class RtDetrV2Config(HybridConfig, SamplingConfig):
    """Settings of RT-DETRv2. The defaults are the official ResNet-50 (size L)."""

    family: ClassVar[str] = "rtdetr_v2"

    backbone: str = "resnet50d"
    """name of the backbone: presnet18, presnet34, resnet50d, resnet101d ..."""
    position_layers: int = 2
    """linear layers of the network that reads a query's box: 2; 3 where DEIM trained it"""
    sampling: Literal["bilinear", "nearest"] = "bilinear"
    """how attention reads maps: between pixels, or the nearest pixel (the official `dsp` models)"""

    def problems(self) -> list[str]:
        """An unknown sampling, no position network."""
        problems = super().problems() + self.below_one("position_layers", "n_points")
        if self.sampling not in ("bilinear", "nearest"):
            problems.append(f"sampling must be bilinear or nearest, not {self.sampling!r}")
        return problems


class RtDetrV2(HybridStudent[RtDetrV2Config]):
    """A decoder that looks forward twice, with heads of its own for every layer."""

    def __init__(self, config: RtDetrV2Config) -> None:
        super().__init__(config, rt_detr_parts(config.expansion, config.blocks))
        self.config = config
        activation = ACTIVATIONS[config.activation]
        self.decoder = DeformableDecoder(
            config.decoder_layers,
            config.dim,
            config.ffn_dim,
            config.n_heads,
            len(config.strides),
            config.n_points,
            dropout=config.dropout,
            backend=config.attention_backend,
            sampling=config.sampling,
            refinement="look_forward_twice",
            box_position="plain",
            plain_layers=config.position_layers,
            activation=activation,
            checkpointing=config.checkpointing,
        )
        self.heads = LayerHeads(
            config.dim,
            config.n_classes,
            config.decoder_layers,
            shared=False,
            activation=activation,
        )
        assert self.decoder.query_position is not None
        self.start_as_official(self.decoder.query_position)

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: Noise | None = None,
    ) -> StudentOutput:
        """Detect.

        `images` is [B, 3, H, W], RGB in 0..1, multiples of 32 px, each in the upper left corner and
        zero elsewhere; `mask` [B, H, W] is True on padding. In training, `targets` (one per image)
        start the denoising queries, with `noise` in place of fresh random numbers if given. Of
        every layer come logits [B, Q, C] and boxes [B, Q, 4], (cx, cy, w, h) in 0..1 of each image
        without its padding; in evaluation of the first `config.eval_layers`.

        Raises UsageError for images of other sizes.
        """
        levels = self.encode(images, mask)
        start = self.start(levels, targets, noise)
        layers = self.decoder(
            start.content,
            start.boxes,
            levels.content,
            levels,
            self.heads,
            start.blocked,
            n_layers=None if self.training else self.config.eval_layers,
        )
        denoising = None
        if start.noisy is not None:
            layers, denoising = start.noisy.split(layers)
        return StudentOutput(
            layers, proposals=start.proposals, proposal_labels="class", denoising=denoising
        )
