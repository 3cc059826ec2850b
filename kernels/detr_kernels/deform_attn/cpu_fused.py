"""The fused operator on a CPU: softmax and locations around `cpu.py`, forward and backward by hand.

Neither weights nor locations are kept for the backward, which makes them again. In rows of L * P
samples, x and y side by side, that is cheap: torch is slow where the last axes are short.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detr_kernels.deform_attn import cpu


class Places(NamedTuple):
    """Locations are centre + offset * scale; every axis broadcasts against [B, Q, H, L * P * 2]."""

    centre: Tensor  # [B, Q, 1, L * P * 2]
    scale: Tensor  # [B, Q, 1, L * P * 2], or [L * P * 2] around points


def forward(
    value: Tensor,
    shapes: Sequence[Sequence[int]],
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
) -> Tensor:
    """As `deform_attn_fused_reference`, for tensors of one dtype, fp32 or fp64."""
    places = _places(reference, shapes, offsets.shape[4])
    return cpu.forward(value, shapes, _locations(places, offsets), _softmax(logits))


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Sequence[Sequence[int]],
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    *,
    needs_reference: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of value, offsets, logits, and reference (None unless asked for)."""
    places = _places(reference, shapes, offsets.shape[4])
    weights = _softmax(logits)
    grad_value, grad_locations, grad_weights = cpu.backward(
        grad_output, value, shapes, _locations(places, offsets), weights
    )
    grad_reference = None
    if needs_reference:
        grad_reference = _reference_gradient(grad_locations, offsets, reference)
    grad_locations.flatten(3).mul_(places.scale)
    return grad_value, grad_locations, _softmax_gradient(weights, grad_weights), grad_reference


def _places(reference: Tensor, shapes: Sequence[Sequence[int]], points: int) -> Places:
    """`fused_reference.sampling_locations` taken apart."""

    def spread(per_level: Tensor) -> Tensor:
        """[..., L, 2] -> [..., L * P * 2]"""
        return per_level.unsqueeze(-2).expand(*per_level.shape[:-1], points, 2).flatten(-3)

    centre = spread(reference[..., :2])[:, :, None]
    if reference.shape[-1] == 2:
        sizes = torch.tensor([(w, h) for h, w, *_ in shapes], dtype=reference.dtype)
        return Places(centre, spread(1 / sizes))
    return Places(centre, spread(reference[..., 2:] * (0.5 / points))[:, :, None])


def _locations(places: Places, offsets: Tensor) -> Tensor:
    return (offsets.flatten(3) * places.scale).add_(places.centre).view(offsets.shape)


def _softmax(logits: Tensor) -> Tensor:
    rows = logits.flatten(3)
    rows = (rows - rows.amax(-1, keepdim=True)).exp_()
    return rows.div_(rows.sum(-1, keepdim=True)).view(logits.shape)


def _softmax_gradient(weights: Tensor, grad_weights: Tensor) -> Tensor:
    """Through the softmax over levels and points; overwrites grad_weights."""
    rows, grads = weights.flatten(3), grad_weights.flatten(3)
    mean = (rows * grads).sum(-1, keepdim=True)
    return grads.sub_(mean).mul_(rows).view(weights.shape)


def _reference_gradient(grad_locations: Tensor, offsets: Tensor, reference: Tensor) -> Tensor:
    """Sums over what shares a reference, heads and points; [B, Q, L, 2 or 4]."""
    centre = grad_locations.sum((2, 4))
    if reference.shape[-1] == 2:
        return centre
    extent = (grad_locations * offsets).sum((2, 4)) * (0.5 / offsets.shape[4])
    return torch.cat([centre, extent], dim=-1)
