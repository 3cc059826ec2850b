"""The levels' sizes: pairs or a tensor, as a model has them, and what an implementation wants."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from detr_kernels.deform_attn.registration import register

Pairs = tuple[tuple[int, int], ...]


def shape_pairs(spatial_shapes: Tensor | Sequence[Sequence[int]]) -> Pairs:
    """The sizes as Python integers; from a tensor on a GPU this waits for the GPU."""
    sizes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    return tuple((int(h), int(w)) for h, w in sizes)


def shape_tensor(spatial_shapes: Tensor | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """The sizes as an int64 tensor [L, 2] on `device`, without waiting for it.

    Pairs are copied to a GPU once and kept, so that a step (or a CUDA graph's capture, after one
    warm-up call) makes no copy at all; a compiled step neither.
    """
    if isinstance(spatial_shapes, Tensor):
        if spatial_shapes.device == device or torch.compiler.is_compiling():
            return spatial_shapes.to(device, torch.int64)
    elif torch.compiler.is_compiling():
        flat = [side for pair in spatial_shapes for side in pair]
        return torch.ops.detr_kernels.level_sizes(flat, device)
    return _kept(shape_pairs(spatial_shapes), device)


@lru_cache(maxsize=1024)
def _kept(pairs: Pairs, device: torch.device) -> Tensor:
    # a tensor born in inference mode could not serve a training step later
    with torch.inference_mode(False):
        return torch.tensor(pairs, dtype=torch.int64, device=device)


def _level_sizes(sides: Sequence[int], device: torch.device) -> Tensor:
    """An operator, so that a compiled graph holds no copy from the host to the GPU.

    Returns a copy: what a graph computes, its compiler may overwrite.
    """
    return _kept(tuple(zip(sides[::2], sides[1::2], strict=True)), device).clone()


def _fake_level_sizes(sides: Sequence[int], device: torch.device) -> Tensor:
    return torch.empty(len(sides) // 2, 2, dtype=torch.int64, device=device)


register(
    "level_sizes", "(SymInt[] sides, Device device) -> Tensor", _level_sizes, _fake_level_sizes
)
