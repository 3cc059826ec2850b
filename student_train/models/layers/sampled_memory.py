"""Deformable attention that samples the memory as it is, with a number of points of its own for
every level (D-FINE: 3, 6 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detr_kernels import deform_attn_fused
from student_train.models.layers.encoder import Levels


class SampledMemory(nn.Module):
    """Queries attend to sampled points of every level; heads share the channels among them, and
    neither the memory nor what was found in it is projected (D-FINE's `MSDeformableAttention`).

    The operator has one number of points for all levels: a level of 6 where that number is 3 comes
    twice, each time with half of its points (see `repeat_levels`).
    """

    def __init__(self, dim: int, n_heads: int, n_points: Sequence[int], backend: str) -> None:
        super().__init__()
        self.n_heads, self.backend = n_heads, backend
        self.unit = math.gcd(*n_points)
        self.repeats = tuple(points // self.unit for points in n_points)
        samples = n_heads * sum(n_points)
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        # head i looks along direction i, point k of a level k + 1 steps far
        angles = torch.arange(n_heads) * (2.0 * math.pi / n_heads)
        directions = torch.stack((angles.cos(), angles.sin()), -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1.0, points + 1) for points in n_points])
        with torch.no_grad():
            start = directions[:, None] * steps[:, None]
            self.sampling_offsets.bias.copy_(start.reshape(-1))
        # an offset of all points of its level reaches a box's edge; the operator counts `unit`
        shares = [1 / repeat for repeat in self.repeats for _ in range(repeat)]
        self.register_buffer("shares", torch.tensor(shares), persistent=False)

    shares: Tensor

    def forward(self, query: Tensor, boxes: Tensor, memory: Levels) -> Tensor:
        """[B, Q, C], position added, to [B, Q, C]; `boxes` [B, Q, 4] (cx, cy, w, h) in 0..1 of the
        map, `memory` as `repeat_levels` makes it for this layer's points.
        """
        value = memory.content.unflatten(-1, (self.n_heads, -1))
        group = (self.n_heads, len(self.shares), self.unit)
        with torch.autocast(query.device.type, enabled=False):
            # offsets of bf16 would move the samples, see `MultiScaleDeformableAttention`
            offsets = self.sampling_offsets(query.to(self.sampling_offsets.weight.dtype))
        offsets = offsets.unflatten(-1, (*group, 2)) * self.shares.to(offsets.dtype)[:, None, None]
        logits = self.attention_weights(query).unflatten(-1, group)
        reference = boxes[:, :, None].expand(-1, -1, len(self.shares), -1)
        return deform_attn_fused(
            value, memory.shapes, offsets, logits, reference, backend=self.backend
        )


def repeat_levels(memory: Levels, repeats: Sequence[int]) -> Levels:
    """Each level as often as `repeats` says, one after the other."""
    if max(repeats) == 1:
        return memory
    sizes = [height * width for height, width in memory.shapes]
    order = [i for i, count in enumerate(repeats) for _ in range(count)]
    parts = memory.content.split(sizes, 1)
    masks = memory.mask.split(sizes, 1)
    return Levels(
        content=torch.cat([parts[i] for i in order], 1),
        mask=torch.cat([masks[i] for i in order], 1),
        shapes=tuple(memory.shapes[i] for i in order),
        valid_ratios=memory.valid_ratios[:, order],
    )
