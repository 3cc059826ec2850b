"""Gradient of the values without atomics: the same bits in every run, slower and with more memory.

The backward kernel writes down, for each corner of each sample, its pixel and its weight. A stable
sort brings a pixel's corners together in an order that depends on nothing but the inputs, and
`_sum_kernel` adds them up in that order. Images go one by one: an image's Q * H * L * P * 4
corners take 8 bytes each in all images and 24 more while their own are sorted.
"""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

# corners added at a time; a fixed number, for it decides the order of the sums
BLOCK_N = 32
NUM_WARPS = 1


def sum_corners(
    corner_pixels: Tensor, corner_weights: Tensor, grad_output: Tensor, grad_value: Tensor
) -> None:
    """Fill grad_value [B, S, H, D] (fp32) with the sums of weight * grad_output by pixel.

    corner_pixels: [B, Q, H, L, P, 4] int32, pixel * H + head of every corner.
    corner_weights: the same sizes, fp32.
    grad_output: [B, Q, H * D], contiguous.
    """
    batch, pixels, heads, dim = grad_value.shape
    per_row = corner_pixels[0, 0, 0].numel()
    slots = torch.arange(pixels * heads + 1, dtype=torch.int32, device=grad_value.device)
    for image in range(batch):
        found, order = corner_pixels[image].flatten().sort(stable=True)
        bounds = torch.searchsorted(found, slots)
        _sum_kernel[(pixels * heads,)](
            order,
            bounds,
            corner_weights[image],
            grad_output[image],
            grad_value[image],
            PER_ROW=per_row,
            D=dim,
            BLOCK_D=triton.next_power_of_2(dim),
            BLOCK_N=BLOCK_N,
            num_warps=NUM_WARPS,
        )


@triton.jit
def _sum_kernel(
    order_ptr,  # [N] int64, corners by pixel
    bounds_ptr,  # [S * H + 1] int64, where each pixel's begin
    weights_ptr,  # [N] fp32
    grad_output_ptr,  # [Q * H, D]
    grad_value_ptr,  # [S * H, D] fp32
    PER_ROW: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds_ptr + slot), tl.load(bounds_ptr + slot + 1)
    channel = tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], dtype=tl.float32)
    for first in range(begin, end, BLOCK_N):
        index = first + tl.arange(0, BLOCK_N)
        exists = index < end
        corner = tl.load(order_ptr + index, mask=exists, other=0)
        weight = tl.load(weights_ptr + corner, mask=exists, other=0.0)
        # a corner that weighs nothing adds nothing, whatever the gradient
        read = (weight != 0.0)[:, None] & (channel < D)[None, :]
        pointers = grad_output_ptr + (corner // PER_ROW * D)[:, None] + channel[None, :]
        grad = tl.load(pointers, mask=read, other=0.0).to(tl.float32)
        total += tl.sum(grad * weight[:, None], axis=0)
    tl.store(grad_value_ptr + slot * D + channel, total, mask=channel < D)
