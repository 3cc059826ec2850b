"""Forward of deformable attention in Triton; `reference.py` says what it computes.

A program takes a block of rows, a row being one (query, head), and all D channels of each: the
address of a sample is worked out once a row, its four pixels are read D contiguous channels at a
time, and sums stay in fp32 registers until the one store.
"""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from detr_kernels.deform_attn.triton_common import axis_corners, plan

# channels a program: 32 rows of 32 with 4 threads to a row in bf16 (docs/kernel.md)
ELEMENTS = 1024
NUM_WARPS = 4


def forward(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Arguments as in `deform_attn`, locations and weights in fp32, shapes [L, 2] int64 there too.

    Returns [B, Q, H * D] in value's dtype. Launches one kernel and waits for nothing.
    """
    batch, pixels, heads, dim = value.shape
    queries = locations.shape[1]
    output = torch.empty(batch, queries, heads * dim, dtype=value.dtype, device=value.device)
    if output.numel() == 0:
        return output
    launch = plan(value, locations, ELEMENTS, NUM_WARPS)
    # a launch goes to the current GPU, which need not be the tensors'
    with torch.cuda.device_of(value):
        _forward_kernel[launch.grid](
            value.contiguous(),
            shapes.contiguous(),
            locations.contiguous(),
            weights.contiguous(),
            output,
            pixels,
            queries,
            **launch.constants,
            num_warps=launch.num_warps,
        )
    return output


@triton.jit(do_not_specialize=["S", "Q"])
def _forward_kernel(
    value_ptr,  # [B, S, H, D]
    shapes_ptr,  # [L, 2] int64, (h, w)
    locations_ptr,  # [B, Q, H, L, P, 2] fp32
    weights_ptr,  # [B, Q, H, L, P] fp32
    output_ptr,  # [B, Q, H, D]
    S,
    Q,
    H: tl.constexpr,
    D: tl.constexpr,
    L: tl.constexpr,
    P: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WIDE: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    value_ptr += image * S * (H * D)
    locations_ptr += image * Q * (H * L * P * 2)
    weights_ptr += image * Q * (H * L * P)
    output_ptr += image * Q * (H * D)

    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [R]
    channel = tl.arange(0, BLOCK_D)  # [D]
    row_exists = row < Q * H
    channel_exists = channel < D
    if WIDE:
        row = row.to(tl.int64)
    head_channel = (row % H * D)[:, None] + channel[None, :]  # [R, D]

    total = tl.zeros([BLOCK_R, BLOCK_D], dtype=tl.float32)
    start = tl.zeros([], dtype=tl.int32)
    for level in range(L):
        h = tl.load(shapes_ptr + level * 2).to(tl.int32)
        w = tl.load(shapes_ptr + level * 2 + 1).to(tl.int32)
        # shapes that disagree with S must not send a load past the end
        reads = row_exists & (start + h * w <= S)
        for step in range(P // UNROLL):
            for part in tl.static_range(UNROLL):
                sample = row * (L * P) + level * P + step * UNROLL + part
                x = tl.load(locations_ptr + sample * 2, mask=row_exists, other=0.0)
                y = tl.load(locations_ptr + sample * 2 + 1, mask=row_exists, other=0.0)
                weight = tl.load(weights_ptr + sample, mask=row_exists, other=0.0)
                left, right_weight, left_exists, right_exists = axis_corners(x, w)
                top, bottom_weight, top_exists, bottom_exists = axis_corners(y, h)
                lower = weight * bottom_weight
                upper = weight - lower
                pixel = start + top * w + left
                if WIDE:
                    pixel = pixel.to(tl.int64)
                left_weight = 1.0 - right_weight
                above = value_ptr + (pixel * (H * D))[:, None] + head_channel
                below = above + w * (H * D)
                above_exists, below_exists = reads & top_exists, reads & bottom_exists
                total += _corner(
                    above, upper * left_weight, above_exists & left_exists, channel_exists
                )
                total += _corner(
                    above + H * D, upper * right_weight, above_exists & right_exists, channel_exists
                )
                total += _corner(
                    below, lower * left_weight, below_exists & left_exists, channel_exists
                )
                total += _corner(
                    below + H * D, lower * right_weight, below_exists & right_exists, channel_exists
                )
        start += h * w

    offsets = (row * D)[:, None] + channel[None, :]
    stored = row_exists[:, None] & channel_exists[None, :]
    tl.store(output_ptr + offsets, total.to(output_ptr.dtype.element_ty), mask=stored)


@triton.jit
def _corner(pointers, weight, exists, channel_exists):
    """One corner's share of the output, [R, D]."""
    mask = exists[:, None] & channel_exists[None, :]
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32) * weight[:, None]
