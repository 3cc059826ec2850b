"""How the layer lays out its samples: levels with points of their own, and the nearest pixel in
place of a mean of four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from detr_kernels.deform_attn.levels import placed

Sampling = Literal["bilinear", "nearest"]


class PointLayout:
    """Levels with any number of points, for an operator that takes as many of every one.

    A level of 6 points beside levels of 3 is passed twice, 3 points each: the samples keep their
    order and number, and no token is copied, since levels of the operator may share tokens.
    """

    def __init__(self, points: Sequence[int]) -> None:
        self.points = tuple(points)
        """of every level"""
        self.each = math.gcd(*self.points)
        """points of every level that the operator sees"""
        self.source = [i for i, count in enumerate(points) for _ in range(count // self.each)]
        """the level that each of these stands for"""
        self.equal = len(self.source) == len(self.points)

    def levels(
        self, spatial_shapes: Tensor | Sequence[Sequence[int]]
    ) -> Tensor | Sequence[Sequence[int]]:
        """(h, w) of every level to what the operator takes."""
        if self.equal:
            return spatial_shapes
        if isinstance(spatial_shapes, Tensor):
            area = spatial_shapes.prod(1)
            rows = torch.cat((spatial_shapes, (area.cumsum(0) - area)[:, None]), 1)
            return torch.stack([rows[i] for i in self.source])
        rows = placed(spatial_shapes)
        return [rows[i] for i in self.source]

    def references(self, reference: Tensor) -> Tensor:
        """[B, Q, L, 2 or 4] to the levels that the operator sees."""
        if self.equal:
            return reference
        return torch.stack([reference[:, :, i] for i in self.source], 2)

    def offsets(self, offsets: Tensor, around_boxes: bool) -> Tensor:
        """[B, Q, H, L', P', 2] as predicted to such as the operator divides by its own P'.

        Around a box, an offset of as many as the level has points reaches the edge.
        """
        if self.equal or not around_boxes:
            return offsets
        shares = torch.stack(
            [torch.full((), self.each / self.points[i], device=offsets.device) for i in self.source]
        )
        return offsets * shares.to(offsets.dtype)[:, None, None]


def sample_nearest(
    value: Tensor,
    spatial_shapes: Sequence[Sequence[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """As `deform_attn_reference`, but every sample is the pixel that it falls in, and one beyond
    the map the nearest within (RT-DETRv2's `discrete` sampling, arXiv 2407.17140, 2.1).

    Faithful to the official code in two points: half a pixel is added before the fraction is cut,
    towards zero; and both indices are bounded by the *height*, so on maps wider than high columns
    beyond it are not read. Locations get no gradient.
    """
    batch, _, heads, dim = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    samples: list[Tensor] = []
    for level, (h, w, start) in enumerate(placed(spatial_shapes)):
        at = sampling_locations[:, :, :, level]  # [B, Q, H, P, 2]
        column, row = ((at[..., i] * side + 0.5).long() for i, side in ((0, w), (1, h)))
        token = start + row.clamp(0, h - 1) * w + column.clamp(0, h - 1).clamp(max=w - 1)
        place = token.permute(0, 1, 3, 2).reshape(batch, queries * points, heads, 1)
        found = value.gather(1, place.expand(-1, -1, -1, dim))
        samples.append(found.view(batch, queries, points, heads, dim))
    weights = attention_weights.flatten(3).transpose(2, 3)[..., None].to(value.dtype)
    return (torch.cat(samples, 2) * weights).sum(2).flatten(2)
