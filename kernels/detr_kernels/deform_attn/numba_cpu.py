"""The operators on a CPU by numba: tensors in, tensors out, heads shared among threads.

Threads are ours and as many as torch's (`torch.set_num_threads`): numba's own pools abort a
process that forks or calls from two threads at once. No memory beyond outputs and gradients, but
fp32 copies of fp16 and bf16 tensors and of those that are not contiguous.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr_kernels.deform_attn.levels import placed, shape_rows

# products of one channel with one corner; below, waking another thread costs more than it does
WORK_A_THREAD = 2**20

Kernel = Callable[..., None]


def forward(
    value: Tensor, shapes: Tensor, coordinates: Tensor, scores: Tensor, reference: Tensor | None
) -> Tensor:
    """Of tensors of one dtype, fp32 or fp64. Returns [B, Q, H * D].

    coordinates [B, Q, H, L, P, 2], scores [B, Q, H, L, P] and reference as in `deform_attn_fused`;
    no reference: locations and weights as in `deform_attn`.
    """
    from detr_kernels.deform_attn import numba_kernels

    batch, _, heads, dim = value.shape
    output = value.new_empty(batch, scores.shape[1], heads * dim)
    arguments = (
        _flat(value),
        _levels(shapes),
        *_rows(coordinates, scores, reference),
        _flat(output),
        _dims(value, scores),
    )
    _run(numba_kernels.forward, arguments, batch * heads, scores.numel() * dim * 4)
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    coordinates: Tensor,
    scores: Tensor,
    reference: Tensor | None,
    *,
    needs_reference: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of value, coordinates, scores, and reference (None unless asked for)."""
    from detr_kernels.deform_attn import numba_kernels

    batch, queries, heads, levels, _ = scores.shape
    grad_value = value.new_empty(value.shape)
    grad_coordinates = coordinates.new_empty(coordinates.shape)
    grad_scores = scores.new_empty(scores.shape)
    per_head = value.new_zeros(0, 0)
    if needs_reference and reference is not None:
        per_head = value.new_zeros(batch * queries * heads, levels * reference.shape[-1])
    arguments = (
        _flat(grad_output),
        _flat(value),
        _levels(shapes),
        *_rows(coordinates, scores, reference),
        _flat(grad_value),
        *_rows(grad_coordinates, grad_scores, None)[:2],
        per_head.numpy(),
        _dims(value, scores),
    )
    _run(numba_kernels.backward, arguments, batch * heads, scores.numel() * value.shape[-1] * 8)
    grad_reference = None
    if needs_reference and reference is not None:
        grad_reference = per_head.view(batch, queries, heads, *reference.shape[2:]).sum(2)
    return grad_value, grad_coordinates, grad_scores, grad_reference


def _dims(value: Tensor, scores: Tensor) -> tuple[int, int, int, int, int]:
    """(S, Q, H, D, P)"""
    _, pixels, heads, dim = value.shape
    return pixels, scores.shape[1], heads, dim, scores.shape[-1]


def _levels(shapes: Tensor) -> Any:
    """(h, w, start) of every level."""
    return np.array(placed(shape_rows(shapes)), dtype=np.int64).reshape(-1, 3)


def _flat(tensor: Tensor) -> Any:
    """As an array of one axis, which shares the memory of a contiguous tensor."""
    return tensor.detach().contiguous().view(-1).numpy()


def _rows(coordinates: Tensor, scores: Tensor, reference: Tensor | None) -> tuple[Any, Any, Any]:
    """Tables as the kernels take them: a row for each (image, query, head), or (image, query)."""
    batch, queries, heads, levels, points = scores.shape
    samples = levels * points
    columns = 0 if reference is None else levels * reference.shape[-1]
    places = scores.new_empty(batch * queries, 0) if reference is None else reference
    return (
        coordinates.detach().contiguous().view(batch * queries * heads, samples * 2).numpy(),
        scores.detach().contiguous().view(batch * queries * heads, samples).numpy(),
        places.detach().contiguous().view(batch * queries, columns).numpy(),
    )


def _run(kernel: Kernel, arguments: tuple[Any, ...], tasks: int, work: int) -> None:
    """All tasks of a kernel, in as many threads as they are worth."""
    threads = min(torch.get_num_threads(), tasks, max(1, work // WORK_A_THREAD))
    if threads <= 1:
        kernel(*arguments, 0, tasks)
        return
    bounds = [tasks * i // threads for i in range(threads + 1)]
    pool = _pool(threads - 1, os.getpid())
    others = [pool.submit(kernel, *arguments, first, last) for first, last in pairwise(bounds[1:])]
    kernel(*arguments, 0, bounds[1])
    for other in others:
        other.result()


@lru_cache(maxsize=8)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Of this process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="deform_attn")
