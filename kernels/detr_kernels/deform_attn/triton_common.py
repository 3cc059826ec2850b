"""What the forward and backward kernels share: launch sizes, levels and bilinear corners.

A program is one warp. It takes BLOCK_R rows, a row being one (query, head) of one image, and of a
level BLOCK_P points at a time. Those BLOCK_P * BLOCK_R samples lie point by point in one axis, J:
arithmetic on [J] is spread over the warp's lanes, one sample to a lane, where a [rows, channels]
tile would repeat it in every thread of a row.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from detr_kernels.errors import ArgumentError

# a position in pixels where a sample reads nothing
OUTSIDE = tl.constexpr(-9.0)


class Tuning(NamedTuple):
    """How one kernel is launched. `python -m detr_kernels.tune` times others on a GPU.

    tile: elements of one corner's tile, [J, D]. Above 64 channels half of it, and a quarter where
        pixels cannot be read 16 bytes at a time: more would not fit the registers.
    blocks: row blocks that a program takes one after another where there are many, so that
        neighbouring queries, which look at the same pixels, meet in one L1 cache.
    warps: of a program; with one, no barrier waits for anybody.
    registers: at most, of a thread: fewer let more programs share a multiprocessor, until loads
        have to wait for each other or registers spill.
    """

    tile: int
    blocks: int
    warps: int
    registers: int


# by kernel and bytes of a value; chosen by the machine code (README.md), the same for all sizes, so
# that another Q tunes nothing anew
TUNING = {
    ("forward", 2): Tuning(1024, 4, 1, 128),
    ("forward", 4): Tuning(1024, 4, 1, 168),
    ("backward", 2): Tuning(1024, 4, 1, 255),
    ("backward", 4): Tuning(1024, 4, 1, 255),
}
# row blocks from which on a program takes several: fewer leave multiprocessors without work
MANY_BLOCKS = 16384


class Launch(NamedTuple):
    """Grid, row blocks a program, and compile-time sizes and options of one launch."""

    grid: tuple[int, int]
    blocks: int
    constants: dict[str, int | bool]


def plan(kernel: str, value: Tensor, grouping: tuple[int, ...], row_stride: int) -> Launch:
    """Sizes of a launch of "forward" or "backward" for value [B, S, H, D].

    grouping: of the samples, [B, Q, H, L, P].
    row_stride: elements between a query and the next in the widest tensor of samples. Programs of
    one image are neighbours, so that its maps stay in the L2 cache. Raises ArgumentError for more
    images than a grid has rows.
    """
    dim = value.shape[-1]
    batch, queries, heads, levels, points = grouping
    if batch > 65535:
        raise ArgumentError(f"value: expected at most 65535 images for the GPU, got {batch}")
    tuning = TUNING[kernel, value.element_size()]
    sizes = block_sizes(dim, value.element_size(), points, tuning.tile)
    blocks = triton.cdiv(queries * heads, sizes["BLOCK_R"])
    per_program = tuning.blocks if batch * blocks >= MANY_BLOCKS else 1
    # the widest of what a query has: its samples' corners, and its channels
    widest = heads * max(levels * points * 4, dim)
    return Launch(
        grid=(triton.cdiv(blocks, per_program), batch),
        blocks=per_program,
        constants={
            "H": heads,
            "D": dim,
            "L": levels,
            "P": points,
            **sizes,
            # offsets inside one image's samples fit 32 bits on every map met so far
            "WIDE": queries * max(row_stride, widest) >= 2**31,
            "num_warps": tuning.warps,
            "maxnreg": tuning.registers,
        },
    )


def block_sizes(dim: int, element_size: int, points: int, tile: int) -> dict[str, int]:
    """Rows, points and channels of one corner's tile, from sizes that no image changes."""
    block_d = triton.next_power_of_2(dim)
    if dim * element_size % 16:
        tile //= 4
    elif block_d > 64:
        tile //= 2
    block_p = min(triton.next_power_of_2(points), 8, max(1, tile // block_d))
    block_r = max(1, tile // (block_d * block_p))
    return {"BLOCK_R": block_r, "BLOCK_P": block_p, "BLOCK_D": block_d}


def query_rows(tensor: Tensor) -> tuple[Tensor, int]:
    """Samples' tensor [B, Q, ...] and the elements from one query to the next, over all images.

    A slice of a wider linear layer's output is taken where it lies; other layouts are copied.
    """
    batch, queries = tensor.shape[:2]
    inner = tensor[0, 0]
    if inner.is_contiguous():
        if queries == 1:
            return tensor, tensor.stride(0) if batch > 1 else inner.numel()
        if batch == 1 or tensor.stride(0) == queries * tensor.stride(1):
            return tensor, tensor.stride(1)
    return tensor.contiguous(), inner.numel()


@triton.jit
def level_size(shapes_ptr, level, start, S, COLUMNS: tl.constexpr):
    """(h, w, first pixel, first of the next level, whether it lies within S) of one level, which
    begins at `start` unless its row says where.

    Sizes that disagree with S must not send a load past the end: such a level becomes one pixel at
    0, and its samples are to be moved outside it.
    """
    h = tl.load(shapes_ptr + level * COLUMNS)
    w = tl.load(shapes_ptr + level * COLUMNS + 1)
    if COLUMNS == 3:
        start = tl.load(shapes_ptr + level * COLUMNS + 2)
    stop = start + h * w
    exists = (h > 0) & (w > 0) & (stop <= S)
    if COLUMNS == 3:
        exists = exists & (start >= 0)
    first = tl.where(exists, start, 0).to(tl.int32)
    h = tl.where(exists, h, 1).to(tl.int32)
    w = tl.where(exists, w, 1).to(tl.int32)
    return h, w, first, stop, exists


@triton.jit
def axis_corners(position, size):
    """One axis of samples: near pixel and the weights of the near and the far one.

    position in pixels [J], size in pixels (scalar). The pair of pixels stays inside the map, and a
    pixel's weight is a hat of width one around it: what lies outside the map gets none. So loads
    need no masks. On a map one pixel long the far pixel weighs nothing.
    """
    near = _near(position, size)
    distance = position - near
    near_weight = tl.maximum(1.0 - tl.abs(distance), 0.0)
    far_weight = tl.maximum(1.0 - tl.abs(distance - 1.0), 0.0)
    return near.to(tl.int32), near_weight, tl.where(size > 1, far_weight, 0.0)


@triton.jit
def axis_slopes(position, size):
    """Derivatives of both weights of `axis_corners` by the position, from the right at a pixel."""
    distance = position - _near(position, size)
    near = tl.where(distance < 0.0, 1.0, tl.where(distance < 1.0, -1.0, 0.0))
    near = tl.where(distance < -1.0, 0.0, near)
    far = tl.where(distance < 1.0, 1.0, tl.where(distance < 2.0, -1.0, 0.0))
    return near, tl.where((distance < 0.0) | (size < 2), 0.0, far)


@triton.jit
def _near(position, size):
    return tl.maximum(tl.minimum(tl.floor(position), size.to(tl.float32) - 2.0), 0.0)
