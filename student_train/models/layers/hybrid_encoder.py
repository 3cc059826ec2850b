"""RT-DETR's efficient hybrid encoder (Zhao et al., CVPR 2024, section 4.2): attention within the
coarsest map, convolutions between maps. D-FINE has the same with other convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from box_store.errors import UsageError
from student_train.models.layers.conv_norm import ConvNorm
from student_train.models.layers.csp import CspRep
from student_train.models.layers.dense_encoder import DenseEncoderLayer
from student_train.models.layers.position import geometry_dtype, resize_mask, sine_grid
from student_train.models.layers.recompute import run_layer


@dataclass(frozen=True)
class FusionParts:
    """What stands at the crossings between maps; all maps are `dim` wide."""

    lateral: Callable[[int], nn.Module]
    """dim -> what a map passes before it goes down to the finer one, and is used from then on"""
    merge: Callable[[int], nn.Module]
    """dim -> two maps side by side (2 dim) to one (dim)"""
    downsample: Callable[[int], nn.Module]
    """dim -> what halves a map on the way up"""


def rt_detr_parts(expansion: float, n_blocks: int) -> FusionParts:
    """RT-DETR's: `n_blocks` RepVGG blocks a crossing, `expansion` x dim wide."""
    return FusionParts(
        lateral=lambda dim: ConvNorm(dim, dim, activation=nn.SiLU),
        merge=lambda dim: CspRep(2 * dim, dim, int(expansion * dim), n_blocks, nn.SiLU),
        downsample=lambda dim: ConvNorm(dim, dim, 3, 2, activation=nn.SiLU),
    )


class HybridEncoder(nn.Module):
    """Maps of a backbone, each half as large as the one before, to as many of one width.

    Attention is DETR's layer with GELU on the last map alone. Its positions are counted row by
    row, as tokens are. The official repositories count them column by column, which is the same
    with the axes swapped on a square map, all that their weights were trained on, and scrambled
    elsewhere; there this is what transformers computes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_layers: int,
        parts: FusionParts,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        steps = range(len(channels) - 1)
        self.dim = dim
        self.checkpointing = checkpointing
        self.projections = nn.ModuleList(ConvNorm(width, dim) for width in channels)
        self.layers = nn.ModuleList(
            DenseEncoderLayer(dim, ffn_dim, n_heads, dropout, nn.GELU()) for _ in range(n_layers)
        )
        self.laterals = nn.ModuleList(parts.lateral(dim) for _ in steps)
        self.top_down = nn.ModuleList(parts.merge(dim) for _ in steps)
        self.downsamples = nn.ModuleList(parts.downsample(dim) for _ in steps)
        self.bottom_up = nn.ModuleList(parts.merge(dim) for _ in steps)

    def forward(self, maps: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
        """Maps [B, C_i, H_i, W_i], finest first, to [B, dim, H_i, W_i]; `mask` [B, H, W] of the
        images is True on padding, which attention does not look at.

        Raises UsageError where a map is not half as large as the one before.
        """
        _check_halving(maps, mask)
        inner = [project(x) for project, x in zip(self.projections, maps, strict=True)]
        coarse = self._attend(inner[-1], mask)
        # from the coarsest map down to the finest ...
        down = [coarse]
        for lateral, merge, fine in zip(self.laterals, self.top_down, inner[-2::-1], strict=True):
            down[-1] = lateral(down[-1])
            larger = F.interpolate(down[-1], scale_factor=2.0, mode="nearest")
            down.append(merge(torch.cat((larger, fine), 1)))
        # ... and up again
        found = [down.pop()]
        for halve, merge, x in zip(self.downsamples, self.bottom_up, down[::-1], strict=True):
            found.append(merge(torch.cat((halve(found[-1]), x), 1)))
        return found

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        place = sine_grid(height, width, self.dim, geometry_dtype(x), x.device).to(x.dtype)
        hidden = resize_mask(mask, (height, width)).flatten(1)
        tokens = x.flatten(2).mT
        for layer in self.layers:
            tokens = run_layer(layer, self.checkpointing, tokens, place, hidden)
        return tokens.mT.unflatten(2, (height, width))


def _check_halving(maps: Sequence[Tensor], mask: Tensor) -> None:
    if torch.compiler.is_exporting():
        return
    for fine, coarse in pairwise(maps):
        if tuple(fine.shape[-2:]) != tuple(2 * side for side in coarse.shape[-2:]):
            height, width = mask.shape[-2:]
            raise UsageError(
                "images: expected heights and widths that are multiples of the coarsest stride "
                f"(32 px in most students), as the encoder doubles its maps, got {height} x {width}"
                "; pad them to such, and mark the padding in the mask"
            )
