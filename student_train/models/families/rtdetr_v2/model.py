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
from student_train.models.layers.encoder import LayerSizes
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
        self.decoder = DeformableDecoder(
            config.decoder_layers,
            LayerSizes(
                config.dim,
                config.ffn_dim,
                config.n_heads,
                len(config.strides),
                config.n_points,
                config.dropout,
                config.attention_backend,
            ),
            sampling=config.sampling,
            refinement="look_forward_twice",
            box_position="plain",
            plain_layers=config.position_layers,
            activation=ACTIVATIONS[config.activation],
            checkpointing=config.checkpointing,
        )
        self.heads = self.make_heads(config)
        assert self.decoder.query_position is not None
        self.start_as_official(self.decoder.query_position)

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: Noise | None = None,
    ) -> StudentOutput:
        """Detect: see `HybridStudent.encode` and `Student.forward`. In evaluation the first
        `config.eval_layers` predict.
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
