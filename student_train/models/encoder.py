"""The deformable encoder: feature maps of several scales, flattened to tokens, attend to each
other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detr_kernels import MultiScaleDeformableAttention
from student_train.models.position import geometry_dtype, sine_map, valid_ratio


@dataclass(frozen=True)
class Tokens:
    """Feature maps flattened level by level, row by row. S is the number of cells of all levels
    together.
    """

    content: Tensor
    """[B, S, C]"""
    position: Tensor
    """[B, S, C], sine encoding plus the level's embedding"""
    mask: Tensor
    """[B, S] bool, True on padding"""
    shapes: tuple[tuple[int, int], ...]
    """(height, width) of every level"""
    valid_ratios: Tensor
    """[B, L, 2], share (x, y) of every level that is not padding"""


def flatten_maps(
    maps: list[Tensor],
    mask: Tensor,
    level_embedding: Tensor | None,
    temperature: float,
    offset: float = 0.0,
) -> Tokens:
    """Maps [B, C, H_l, W_l] and the batch's padding mask [B, H, W] as one sequence of tokens.

    `level_embedding` is [L, C]; it tells levels apart, where there are several. `temperature` and
    `offset` are those of the position encoding, see `sine_map`.
    """
    dtype = geometry_dtype(maps[0])
    content, position, masks, shapes, ratios = [], [], [], [], []
    for level, x in enumerate(maps):
        size = x.shape[-2:]
        level_mask = F.interpolate(mask[:, None].float(), size=size)[:, 0].bool()
        place = sine_map(level_mask, x.shape[1], temperature, dtype, offset).to(x.dtype)
        content.append(x.flatten(2).transpose(1, 2))
        place = place.flatten(1, 2)
        position.append(place if level_embedding is None else place + level_embedding[level])
        masks.append(level_mask.flatten(1))
        shapes.append((int(size[0]), int(size[1])))
        ratios.append(valid_ratio(level_mask, dtype))
    return Tokens(
        torch.cat(content, 1),
        torch.cat(position, 1),
        torch.cat(masks, 1),
        tuple(shapes),
        torch.stack(ratios, 1),
    )


def cell_centres(tokens: Tokens) -> Tensor:
    """Where each token looks by default: its cell's centre on every level, [B, S, L, 2], in 0..1 of
    the padded map.
    """
    ratios = tokens.valid_ratios
    centres = []
    for level, (height, width) in enumerate(tokens.shapes):
        y, x = torch.meshgrid(
            torch.linspace(0.5, height - 0.5, height, dtype=ratios.dtype, device=ratios.device),
            torch.linspace(0.5, width - 0.5, width, dtype=ratios.dtype, device=ratios.device),
            indexing="ij",
        )
        x = x.reshape(1, -1) / (ratios[:, None, level, 0] * width)
        y = y.reshape(1, -1) / (ratios[:, None, level, 1] * height)
        centres.append(torch.stack((x, y), -1))
    return torch.cat(centres, 1)[:, :, None] * ratios[:, None]


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention, then a feed-forward network; each added to its input and normed
    after.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_levels: int,
        n_points: int,
        dropout: float,
        backend: str,
    ) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(
            dim, n_heads, n_levels, n_points, backend=backend
        )
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

    def __init__(
        self,
        n_layers: int,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_levels: int,
        n_points: int,
        dropout: float = 0.0,
        backend: str = "auto",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(dim, ffn_dim, n_heads, n_levels, n_points, dropout, backend)
            for _ in range(n_layers)
        )
        self.checkpointing = checkpointing

    def forward(self, tokens: Tokens) -> Tensor:
        """The tokens' content after all layers, [B, S, C]."""
        reference = cell_centres(tokens)
        x = tokens.content
        for layer in self.layers:
            if self.checkpointing and self.training:
                x = checkpoint(layer, x, reference, tokens, use_reentrant=False)
            else:
                x = layer(x, reference, tokens)
        return x
