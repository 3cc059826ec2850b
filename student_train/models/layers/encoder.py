"""The deformable encoder: feature maps of several scales, flattened to tokens, attend to each
other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr_kernels import MultiScaleDeformableAttention, Sampling
from student_train.models.layers.position import (
    cells,
    geometry_dtype,
    resize_mask,
    sine_map,
    valid_ratio,
)
from student_train.models.layers.recompute import run_layer


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Feature maps flattened level by level, row by row. S is the number of cells of all levels
    together.
    """

    content: Tensor
    """[B, S, C]"""
    mask: Tensor
    """[B, S] bool, True on padding"""
    shapes: tuple[tuple[int, int], ...]
    """(height, width) of every level"""
    valid_ratios: Tensor
    """[B, L, 2], share (x, y) of every level that is not padding"""


@dataclass(frozen=True, kw_only=True)
class Tokens(Levels):
    """Flattened maps for an encoder, whose cells know where they stand."""

    position: Tensor
    """[B, S, C], sine encoding plus the level's embedding"""


def flatten_maps(maps: list[Tensor], mask: Tensor) -> Levels:
    """Maps [B, C, H_l, W_l] and the batch's padding mask [B, H, W] as one sequence."""
    masks = [resize_mask(mask, x.shape[-2:]) for x in maps]
    dtype = geometry_dtype(maps[0])
    return Levels(
        content=torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1),
        mask=torch.cat([each.flatten(1) for each in masks], 1),
        shapes=tuple((x.shape[-2], x.shape[-1]) for x in maps),
        valid_ratios=torch.stack([valid_ratio(each, dtype) for each in masks], 1),
    )


def place_maps(
    maps: list[Tensor],
    mask: Tensor,
    level_embedding: Tensor | None,
    temperature: float,
    offset: float = 0.0,
) -> Tokens:
    """`flatten_maps`, and where each cell stands.

    `level_embedding` is [L, C]; it tells levels apart, where there are several. `temperature` and
    `offset` are those of the position encoding, see `sine_map`.
    """
    dtype = geometry_dtype(maps[0])
    position = []
    for level, x in enumerate(maps):
        place = sine_map(resize_mask(mask, x.shape[-2:]), x.shape[1], temperature, dtype, offset)
        place = place.flatten(1, 2).to(x.dtype)
        position.append(place if level_embedding is None else place + level_embedding[level])
    return Tokens(**vars(flatten_maps(maps, mask)), position=torch.cat(position, 1))


def cell_centres(tokens: Tokens) -> Tensor:
    """Where each token looks by default: its cell's centre on every level, [B, S, L, 2], in 0..1 of
    the padded map.
    """
    ratios = tokens.valid_ratios
    centres = []
    for level, (height, width) in enumerate(tokens.shapes):
        y, x = cells(height, width, ratios.dtype, ratios.device)
        x = (x + 0.5)[None] / (ratios[:, None, level, 0] * width)
        y = (y + 0.5)[None] / (ratios[:, None, level, 1] * height)
        centres.append(torch.stack((x, y), -1))
    return torch.cat(centres, 1)[:, :, None] * ratios[:, None]


@dataclass(frozen=True)
class LayerSizes:
    """What layers of deformable attention are made of, in an encoder as in a decoder.

    dim: width of tokens and queries. ffn_dim: hidden width of the feed-forward network. backend: of
    the attention, `auto`, `triton` or `torch`.
    """

    dim: int
    ffn_dim: int
    n_heads: int
    n_levels: int
    n_points: int
    dropout: float = 0.0
    backend: str = "auto"

    def attention(self, sampling: Sampling = "bilinear") -> MultiScaleDeformableAttention:
        """Deformable attention over the levels."""
        shape = (self.dim, self.n_heads, self.n_levels, self.n_points)
        return MultiScaleDeformableAttention(*shape, backend=self.backend, sampling=sampling)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention, then a feed-forward network; each added to its input and normed
    after.
    """

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        dim, ffn_dim, dropout = sizes.dim, sizes.ffn_dim, sizes.dropout
        self.self_attn = sizes.attention()
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.dropout2 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.dropout3 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, reference: Tensor, tokens: Tokens) -> Tensor:
        """[B, S, C] to the same shape; `reference` is [B, S, L, 2]."""
        attended = self.self_attn(x + tokens.position, reference, x, tokens.shapes, tokens.mask)
        x = self.norm1(x + self.dropout1(attended))
        hidden = self.dropout2(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout3(self.linear2(hidden)))


class DeformableEncoder(nn.Module):
    """A stack of layers over the same places. Deformable DETR section 4.1."""

    def __init__(self, n_layers: int, sizes: LayerSizes, checkpointing: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableEncoderLayer(sizes) for _ in range(n_layers))
        self.checkpointing = checkpointing

    def forward(self, tokens: Tokens) -> Tensor:
        """The tokens' content after all layers, [B, S, C]."""
        reference = cell_centres(tokens)
        x = tokens.content
        for layer in self.layers:
            x = run_layer(layer, self.checkpointing, x, reference, tokens)
        return x
