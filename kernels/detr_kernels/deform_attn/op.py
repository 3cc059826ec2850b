"""The public operator: checks its arguments and chooses the backend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.errors import ArgumentError


def choose_backend(device: torch.device | str | None = None) -> tuple[str, str]:
    """The backend for tensors on `device`, and the reason in words."""
    return "torch", "the plain torch formulation"


def explain(device: torch.device | str | None = None) -> str:
    """One printable line: which backend runs on `device` and why."""
    name, reason = choose_backend(device)
    return f"deform_attn: {name} ({reason})"


def deform_attn(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Multi-scale deformable attention without its projections; shapes as in `deform_attn_reference`."""
    if backend not in ("auto", "torch"):
        raise ArgumentError(f"backend: expected auto or torch, got {backend!r}")
    shapes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    pairs = [(int(h), int(w)) for h, w in shapes]
    return deform_attn_reference(value, pairs, sampling_locations, attention_weights)
