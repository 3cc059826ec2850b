"""D-FINE: boxes as distributions of their edges (Peng et al., ICLR 2025, arXiv 2410.13842), as its
official code computes it (Peterande/D-FINE); and DEIM (Huang et al., CVPR 2025, arXiv 2412.04234,
Intellindust-AI-Lab/DEIM): the same with another activation and another class loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from student_train.models.families.d_fine.decoder import Decoded, DFineDecoder
from student_train.models.hybrid import ACTIVATIONS, HybridConfig, HybridStudent
from student_train.models.layers.conv_norm import ConvNorm
from student_train.models.layers.csp import Gelan, SplitDownsample
from student_train.models.layers.denoising import MirroredDenoising, Noise, NoisyQueries
from student_train.models.layers.hybrid_encoder import FusionParts
from student_train.models.output import Denoising, StudentOutput
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class DFineConfig(HybridConfig):
    """Settings of D-FINE. The defaults are the official size S."""

    family: ClassVar[str] = "d_fine"

    backbone: str = "hgnetv2_b0"
    """name of the backbone: hgnetv2_b0, hgnetv2_b2, hgnetv2_b4, hgnetv2_b5 ..."""
    decoder_layers: int = 3
    """layers of the decoder, each of which predicts"""
    expansion: float = 0.5
    """width of the encoder's branches between maps, in halves of its maps"""
    depth: float = 0.34
    """depth of these branches, in thirds of a layer: 1 means three"""
    n_points: tuple[int, ...] = (3, 6, 3)
    """points that a head samples on the map of each stride"""
    n_bins: int = 32
    """an edge's distribution has one value more than this"""
    reg_scale: float = 4.0
    """parts of an initial box's side that the distances of edges are counted in; X: 8"""

    def problems(self) -> list[str]:
        """Points that don't fit the maps, odd bins, no reach."""
        problems = super().problems()
        if len(self.n_points) != len(self.strides) or min(self.n_points, default=0) < 1:
            problems.append(
                f"n_points must be a number from 1 for each of the strides {self.strides}, "
                f"not {self.n_points}"
            )
        if self.n_bins < 4 or self.n_bins % 2:
            problems.append(f"n_bins must be even and at least 4, not {self.n_bins}")
        if self.reg_scale <= 0:
            problems.append(f"reg_scale must be above 0, not {self.reg_scale}")
        return problems


def d_fine_parts(expansion: float, n_blocks: int) -> FusionParts:
    """What stands at the crossings between maps of D-FINE's encoder."""
    return FusionParts(
        lateral=lambda dim: ConvNorm(dim, dim),
        merge=lambda dim: Gelan(2 * dim, dim, round(expansion * dim // 2), n_blocks, nn.SiLU),
        downsample=SplitDownsample,
    )


class DFine(HybridStudent[DFineConfig]):
    """A decoder that moves the edges of its first boxes, with heads of its own for every layer."""

    denoising_queries = MirroredDenoising
    every_layer = False
    """in eval mode: predict from every layer, not from the last alone"""

    def __init__(self, config: DFineConfig) -> None:
        super().__init__(config, d_fine_parts(config.expansion, config.blocks))
        self.config = config
        self.decoder = DFineDecoder(
            config.decoder_layers,
            config.dim,
            config.ffn_dim,
            config.n_heads,
            config.n_points,
            config.n_bins,
            config.reg_scale,
            ACTIVATIONS[config.activation],
            dropout=config.dropout,
            backend=config.attention_backend,
            checkpointing=config.checkpointing,
        )
        self.heads = self.make_heads(config, box_dim=4 * (config.n_bins + 1))
        self.start_as_official(self.decoder.query_position)

    def make_neck(self, config: HybridConfig) -> nn.Module:
        """Nothing where encoder and decoder are of one width."""
        if config.encoder_dim == config.dim:
            return nn.Identity()
        return super().make_neck(config)

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: Noise | None = None,
    ) -> StudentOutput:
        """Detect: see `HybridStudent.encode` and `Student.forward`. Boxes may reach beyond their
        image. In evaluation the last layer, or the `config.eval_layers`-th, predicts alone.
        """
        levels = self.encode(images, mask)
        start = self.start(levels, targets, noise)
        last = None
        if not (self.training or self.every_layer):
            last = (self.config.eval_layers or self.config.decoder_layers) - 1
        found = self.decoder(start.content, start.boxes, levels, self.heads, start.blocked, last)
        denoising = None
        if start.noisy is not None:
            found, denoising = _split(found, start.noisy)
        return StudentOutput(
            found.layers,
            proposals=start.proposals,
            proposal_labels="class",
            denoising=denoising,
            initial=found.initial,
            edges=found.edges,
        )


def _split(found: Decoded, noisy: NoisyQueries) -> tuple[Decoded, Denoising]:
    """What was found of all queries: of the matching ones, and of the denoising ones."""
    layers, denoising = noisy.split(found.layers)
    slots, initial = denoising.n_slots, found.initial
    if initial is not None:
        denoising.initial, initial = initial.queries(0, slots), initial.queries(slots, None)
    denoising.edges = found.edges.queries(0, slots)
    return Decoded(layers, initial, found.edges.queries(slots, None)), denoising
