"""What the forward and backward kernels share: launch sizes and bilinear corners."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from detr_kernels.errors import ArgumentError


class Launch(NamedTuple):
    """Grid and compile-time sizes of one launch. A row is one (query, head) of one image."""

    grid: tuple[int, int]
    constants: dict[str, int | bool]
    num_warps: int


def plan(value: Tensor, locations: Tensor, elements: int, num_warps: int) -> Launch:
    """Rows a program takes: as many as make `elements` channels, padded to a power of two.

    Programs of one image are neighbours, so that its maps stay in the L2 cache.
    """
    batch, pixels, heads, dim = value.shape
    _, queries, _, levels, points, _ = locations.shape
    if batch > 65535:
        raise ArgumentError(f"value: expected at most 65535 images for the GPU, got {batch}")
    block_d = triton.next_power_of_2(dim)
    block_rows = max(1, min(elements // block_d, triton.next_power_of_2(queries * heads)))
    largest = max(pixels * heads * dim, queries * heads * max(levels * points * 2, dim))
    return Launch(
        grid=(triton.cdiv(queries * heads, block_rows), batch),
        constants={
            "H": heads,
            "D": dim,
            "L": levels,
            "P": points,
            "UNROLL": points if points <= 8 else max(i for i in (1, 2, 4) if points % i == 0),
            "BLOCK_R": block_rows,
            "BLOCK_D": block_d,
            # offsets inside one image fit 32 bits on every map met so far; beyond, they take 64
            "WIDE": largest >= 2**31,
        },
        num_warps=num_warps,
    )


@triton.jit
def axis_corners(location, size):
    """One axis of a sample: near pixel, its far weight, and whether near and far pixel exist.

    location in 0..1 [R], size in pixels (scalar).
    """
    extent = size.to(tl.float32)
    # two pixels outside read zero as well as far outside, and the integer below cannot overflow
    position = tl.minimum(tl.maximum(location * extent - 0.5, -2.0), extent + 1.0)
    near = tl.floor(position)
    far_weight = position - near
    index = near.to(tl.int32)
    return index, far_weight, (index >= 0) & (index < size), (index >= -1) & (index < size - 1)
