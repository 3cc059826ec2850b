"""D-FINE: boxes as distributions of their edges (Peng et al., ICLR 2025, arXiv 2410.13842), as its
official code computes it (Peterande/D-FINE), and DEIM (Huang et al., CVPR 2025, arXiv 2412.04234,
Intellindust-AI-Lab/DEIM): the same with another activation and another class loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models.backbones.backbone import Backbone
from student_train.models.config import TransformerConfig
from student_train.models.families.d_fine.decoder import DFineDecoder
from student_train.models.layers.conv_norm import ConvNorm
from student_train.models.layers.csp import Gelan, SplitDownsample
from student_train.models.layers.encoder import flatten_maps
from student_train.models.layers.hybrid_encoder import FusionParts, HybridEncoder
from student_train.models.layers.queries import TwoStageQueries
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "silu": F.silu}


@dataclass(frozen=True, kw_only=True)
class DFineConfig(TransformerConfig):
    """Settings of D-FINE. The defaults are the official size S."""

    family: ClassVar[str] = "d_fine"

    backbone: str = "hgnetv2_b0"
    """name of the backbone: hgnetv2_b0, hgnetv2_b2 ..."""
    norm: str = "batch"
    """frozen: the backbone's batch norms keep the statistics and scales of their weights file (L,
    X); batch: they are trained
    """
    n_classes: int = 80
    """class logits; 80 for COCO's categories, one after the other"""
    top_k: int = 300
    """detections kept for every image when evaluating"""
    ffn_dim: int = 1024
    """hidden width of the decoder's feed-forward networks"""
    encoder_layers: int = 1
    """attention layers on the coarsest map"""
    encoder_dim: int = 256
    """width of the maps in the encoder"""
    encoder_ffn_dim: int = 1024
    """hidden width of the encoder's feed-forward network"""
    expansion: float = 0.5
    """width of the branches in the blocks that fuse maps, in halves of encoder_dim"""
    depth: float = 0.34
    """blocks in a branch, in thirds"""
    decoder_layers: int = 3
    """layers of the decoder, each of which predicts"""
    n_points: tuple[int, ...] = (3, 6, 3)
    """points that a head samples on the map of each stride"""
    attention_backend: str = "auto"
    """deformable attention by triton, torch, or whichever suits the device (auto)"""
    n_bins: int = 32
    """the distribution of an edge has one more value than this"""
    reg_scale: float = 4.0
    """the distributions of edges reach as far as the initial box's side, by this number of steps in
    it; X: 8"""
    activation: Literal["relu", "silu"] = "relu"
    """of the decoder and the heads: relu in D-FINE, silu in DEIM. Weights do not show which they
    were trained with
    """
    dn_number: int = 100
    """denoising queries of either kind an image, roughly; 0 switches denoising off"""
    dn_label_noise: float = 0.5
    """twice the share of denoising labels that are replaced"""
    dn_box_noise: float = 1.0
    """how far positives' corners move at most, in half sizes; negatives move up to twice as far"""

    def problems(self) -> list[str]:
        """Points, bins, widths and noise that cannot be used."""
        problems = super().problems()
        problems += self.below_one("encoder_dim", "encoder_ffn_dim")
        if len(self.n_points) != len(self.strides) or min(self.n_points, default=0) < 1:
            problems.append(
                f"n_points must be one number from 1 for each of the {len(self.strides)} strides, "
                f"not {self.n_points}"
            )
        if self.encoder_dim % (4 * self.n_heads):
            problems.append(
                f"encoder_dim must be a multiple of 4 x n_heads={self.n_heads}, not "
                f"{self.encoder_dim}"
            )
        if self.n_bins < 4 or self.n_bins % 2:
            problems.append(f"n_bins must be even and at least 4, not {self.n_bins}")
        if self.reg_scale <= 0 or self.expansion <= 0 or self.depth <= 0:
            problems.append("reg_scale, expansion and depth must be above 0")
        if self.activation not in _ACTIVATIONS:
            problems.append(f"activation must be relu or silu, not {self.activation!r}")
        if self.attention_backend not in ("auto", "triton", "torch"):
            problems.append(
                f"attention_backend must be auto, triton or torch, not {self.attention_backend!r}"
            )
        if not 0 <= self.dn_label_noise <= 2:
            problems.append(f"dn_label_noise must lie in 0..2, not {self.dn_label_noise}")
        if self.dn_number < 0 or self.dn_box_noise < 0:
            problems.append("dn_number and dn_box_noise must not be negative")
        return problems


def d_fine_parts(expansion: float, n_blocks: int) -> FusionParts:
    """What stands at the crossings of D-FINE's encoder."""
    return FusionParts(
        lateral=lambda dim: ConvNorm(dim, dim),
        merge=lambda dim: Gelan(2 * dim, dim, round(expansion * dim // 2), n_blocks, nn.SiLU),
        downsample=SplitDownsample,
    )


class DFine(nn.Module):
    """A hybrid encoder, queries at its best tokens, and a decoder that moves edges."""

    every_layer = False
    """in eval mode: compute the classes of all layers, not of the last alone"""

    def __init__(self, config: DFineConfig) -> None:
        super().__init__()
        self.config = config
        activation = _ACTIVATIONS[config.activation]
        self.backbone = Backbone(config)
        self.encoder = HybridEncoder(
            self.backbone.channels,
            config.encoder_dim,
            config.encoder_ffn_dim,
            config.n_heads,
            config.encoder_layers,
            d_fine_parts(config.expansion, round(3 * config.depth)),
            dropout=config.dropout,
            checkpointing=config.checkpointing,
        )
        same = config.encoder_dim == config.dim
        self.projections = nn.ModuleList(
            nn.Identity() if same else ConvNorm(config.encoder_dim, config.dim)
            for _ in config.strides
        )
        self.queries = TwoStageQueries(
            config.n_queries,
            config.dim,
            config.n_classes,
            learned_content=False,
            activation=activation,
        )
        self.decoder = DFineDecoder(
            config.decoder_layers,
            config.dim,
            config.ffn_dim,
            config.n_heads,
            config.n_points,
            config.n_classes,
            config.n_bins,
            config.reg_scale,
            activation,
            dropout=config.dropout,
            backend=config.attention_backend,
            checkpointing=config.checkpointing,
        )

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect.

        `images` is [B, 3, H, W], RGB in 0..1; `mask` [B, H, W] is True on padding. In training,
        `targets` (one per image) start the denoising queries, with `noise` in place of fresh random
        numbers if given. Boxes come out as (cx, cy, w, h) in 0..1 of each image without its
        padding, and may reach beyond it. In training come all layers, in evaluation the last alone.

        Raises UsageError for sides that are no multiples of 32.
        """
        maps = self.encoder(self.backbone(images), mask)
        maps = [project(x) for project, x in zip(self.projections, maps, strict=True)]
        memory = flatten_maps(maps, mask)
        start = self.queries(memory.content, memory)
        every = self.training or self.every_layer
        decoded = self.decoder(start.content, start.boxes, memory, None, every)
        return StudentOutput(
            decoded.layers,
            proposals=start.proposals,
            initial=decoded.initial,
            edges=decoded.edges,
        )
