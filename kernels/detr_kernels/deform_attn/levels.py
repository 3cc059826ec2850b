"""Where the levels lie in `value`: as a model says it, and what an implementation wants.

A level is (h, w), and begins where the one before ends; or (h, w, start), and begins at that token
of `value`, so that levels may share tokens.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from detr_kernels.deform_attn.registration import register

Rows = tuple[tuple[int, ...], ...]


def shape_rows(spatial_shapes: Tensor | Sequence[Sequence[int]]) -> Rows:
    """The levels as Python integers; from a tensor on a GPU this waits for the GPU."""
    rows = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    return tuple(tuple(int(number) for number in row) for row in rows)


def placed(rows: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """(h, w, start) of every level; the numbers may be symbols."""
    found: list[tuple[int, int, int]] = []
    end = 0
    for h, w, *start in rows:
        found.append((h, w, start[0] if start else end))
        end += h * w
    return found


def shape_tensor(spatial_shapes: Tensor | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """The levels as an int64 tensor [L, 2 or 3] on `device`, without waiting for it.

    Rows of integers are copied to a GPU once and kept, so that a step (or a CUDA graph's capture,
    after one warm-up call) makes no copy at all; a compiled step neither.
    """
    if isinstance(spatial_shapes, Tensor):
        if spatial_shapes.device == device or torch.compiler.is_compiling():
            return spatial_shapes.to(device, torch.int64)
    elif torch.compiler.is_compiling():
        flat = [number for row in spatial_shapes for number in row]
        columns = len(flat) // max(1, len(spatial_shapes))
        return torch.ops.detr_kernels.level_sizes(flat, device, columns)
    return _kept(shape_rows(spatial_shapes), device)


@lru_cache(maxsize=1024)
def _kept(rows: Rows, device: torch.device) -> Tensor:
    # a tensor born in inference mode could not serve a training step later
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=torch.int64, device=device)


def _level_sizes(sides: Sequence[int], device: torch.device, columns: int = 2) -> Tensor:
    """An operator, so that a compiled graph holds no copy from the host to the GPU.

    Returns a copy: what a graph computes, its compiler may overwrite.
    """
    rows = tuple(zip(*(sides[i::columns] for i in range(columns)), strict=True))
    return _kept(rows, device).clone()


def _fake_level_sizes(sides: Sequence[int], device: torch.device, columns: int = 2) -> Tensor:
    return torch.empty(len(sides) // columns, columns, dtype=torch.int64, device=device)


register(
    "level_sizes",
    "(SymInt[] sides, Device device, int columns=2) -> Tensor",
    _level_sizes,
    _fake_level_sizes,
)
