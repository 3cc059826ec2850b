"""Costs of matching queries with boxes, in one pass over the memory."""

from collections.abc import Callable

from detr_kernels.deform_attn.backend import numba_obstacle


def pair_costs_kernel() -> Callable[..., None] | None:
    """`numba_kernels.fill`, which costs every pair of an image; None where numba cannot run."""
    if numba_obstacle():
        return None
    from detr_kernels.matching.numba_kernels import fill

    return fill


__all__ = ["pair_costs_kernel"]
