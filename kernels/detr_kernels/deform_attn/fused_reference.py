"""What the fused operator computes, step by step in plain torch: softmax, locations, sampling."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detr_kernels.deform_attn.reference import deform_attn_reference


def attention_weights(logits: Tensor) -> Tensor:
    """Softmax over the L * P samples of a query and head; logits and result [B, Q, H, L, P]."""
    return logits.flatten(3).softmax(-1).view(logits.shape)


def sampling_locations(reference: Tensor, offsets: Tensor, sizes: Tensor) -> Tensor:
    """Where to sample (arXiv 2010.04159, 4.1, and 4.2 for boxes), [B, Q, H, L, P, 2], x then y.

    reference: [B, Q, L, 2] points (x, y) or [B, Q, L, 4] boxes (cx, cy, w, h), 0..1 across each
        level's map.
    offsets: [B, Q, H, L, P, 2]. Around a point they count the level's pixels; around a box, P of
        them reach its edge.
    sizes: [L, 2], (h, w) of every level.
    """
    centre = reference[:, :, None, :, None, :2]
    if reference.shape[-1] == 2:
        return centre + offsets / sizes.flip(-1)[:, None, :]
    extent = reference[:, :, None, :, None, 2:]
    return centre + offsets * extent * (0.5 / offsets.shape[4])


def deform_attn_fused_reference(
    value: Tensor,
    spatial_shapes: Sequence[Sequence[int]],
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
) -> Tensor:
    """`deform_attn_fused` as a composition on `deform_attn_reference`; any device and float dtype.

    Arguments as there, of one dtype, or value of a shorter one. Every tensor gets its gradient from
    autograd, as often as asked for.
    """
    sizes = torch.tensor([list(row[:2]) for row in spatial_shapes], device=offsets.device)
    locations = sampling_locations(reference, offsets, sizes)
    return deform_attn_reference(value, spatial_shapes, locations, attention_weights(logits))
