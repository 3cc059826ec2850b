"""Backward of deformable attention in Triton: all three gradients in one kernel.

Every sample is read again rather than kept. A row's products with its four pixels give the
gradients of its location and weight, which are stored; the gradient of the pixels is added to an
fp32 buffer with relaxed atomics (nothing reads it before the kernel ends, so no fence is needed;
Triton's default semantics would flush L1 around each of them).
"""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from detr_kernels.deform_attn.triton_common import axis_corners, plan
from detr_kernels.errors import BackendError

# channels a program: 4 a thread, which one 16-byte atomic adds; one warp needs no barriers
ELEMENTS = 128
NUM_WARPS = 1


def backward(
    grad_output: Tensor, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value (in its dtype, summed in fp32), locations and weights (fp32).

    grad_output: [B, Q, H * D]; the rest as in `triton_forward.forward`. The order of the sums into
    value's gradient differs from run to run, so its last bits do. Raises BackendError where torch
    was told to use deterministic algorithms only.
    """
    strict = not torch.is_deterministic_algorithms_warn_only_enabled()
    if torch.are_deterministic_algorithms_enabled() and strict:
        raise BackendError(
            "deform_attn: the Triton backward sums with atomics, and deterministic algorithms were "
            "asked for; run on the CPU, or torch.use_deterministic_algorithms(True, warn_only=True)"
        )
    pixels, queries = value.shape[1], locations.shape[1]
    device = value.device
    # only this one is accumulated into; the other two are written once everywhere
    grad_value = torch.zeros(value.shape, dtype=torch.float32, device=device)
    grad_locations = torch.empty(locations.shape, dtype=torch.float32, device=device)
    grad_weights = torch.empty(weights.shape, dtype=torch.float32, device=device)
    if grad_weights.numel() == 0:
        return grad_value.to(value.dtype), grad_locations, grad_weights
    launch = plan(value, locations, ELEMENTS, NUM_WARPS)
    # a launch goes to the current GPU, which need not be the tensors'
    with torch.cuda.device_of(value):
        _backward_kernel[launch.grid](
            grad_output.contiguous(),
            value.contiguous(),
            shapes.contiguous(),
            locations.contiguous(),
            weights.contiguous(),
            grad_value,
            grad_locations,
            grad_weights,
            pixels,
            queries,
            **launch.constants,
            num_warps=launch.num_warps,
        )
    return grad_value.to(value.dtype), grad_locations, grad_weights


@triton.jit(do_not_specialize=["S", "Q"])
def _backward_kernel(
    grad_output_ptr,  # [B, Q, H, D]
    value_ptr,  # [B, S, H, D]
    shapes_ptr,  # [L, 2] int64, (h, w)
    locations_ptr,  # [B, Q, H, L, P, 2] fp32
    weights_ptr,  # [B, Q, H, L, P] fp32
    grad_value_ptr,  # [B, S, H, D] fp32, zeros
    grad_locations_ptr,  # [B, Q, H, L, P, 2] fp32
    grad_weights_ptr,  # [B, Q, H, L, P] fp32
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
    grad_value_ptr += image * S * (H * D)
    grad_output_ptr += image * Q * (H * D)
    locations_ptr += image * Q * (H * L * P * 2)
    grad_locations_ptr += image * Q * (H * L * P * 2)
    weights_ptr += image * Q * (H * L * P)
    grad_weights_ptr += image * Q * (H * L * P)

    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)  # [R]
    channel = tl.arange(0, BLOCK_D)  # [D]
    row_exists = row < Q * H
    channel_exists = channel < D
    if WIDE:
        row = row.to(tl.int64)
    head_channel = (row % H * D)[:, None] + channel[None, :]  # [R, D]
    grad = tl.load(
        grad_output_ptr + (row * D)[:, None] + channel[None, :],
        mask=row_exists[:, None] & channel_exists[None, :],
        other=0.0,
    ).to(tl.float32)

    start = tl.zeros([], dtype=tl.int32)
    for level in range(L):
        h = tl.load(shapes_ptr + level * 2).to(tl.int32)
        w = tl.load(shapes_ptr + level * 2 + 1).to(tl.int32)
        # shapes that disagree with S must not send a load or an addition past the end
        reads = row_exists & (start + h * w <= S)
        for step in range(P // UNROLL):
            for part in tl.static_range(UNROLL):
                sample = row * (L * P) + level * P + step * UNROLL + part
                x = tl.load(locations_ptr + sample * 2, mask=row_exists, other=0.0)
                y = tl.load(locations_ptr + sample * 2 + 1, mask=row_exists, other=0.0)
                weight = tl.load(weights_ptr + sample, mask=row_exists, other=0.0)
                left, right_weight, left_exists, right_exists = axis_corners(x, w)
                top, bottom_weight, top_exists, bottom_exists = axis_corners(y, h)
                left_weight, top_weight = 1.0 - right_weight, 1.0 - bottom_weight
                pixel = start + top * w + left
                if WIDE:
                    pixel = pixel.to(tl.int64)
                offsets = (pixel * (H * D))[:, None] + head_channel
                below = offsets + w * (H * D)
                above_exists, below_exists = reads & top_exists, reads & bottom_exists
                above_grad = grad * (weight * top_weight)[:, None]
                below_grad = grad * (weight * bottom_weight)[:, None]
                top_left = _corner(
                    value_ptr, grad_value_ptr, offsets, grad, above_grad, left_weight,
                    above_exists & left_exists, channel_exists,
                )  # fmt: skip
                top_right = _corner(
                    value_ptr, grad_value_ptr, offsets + H * D, grad, above_grad, right_weight,
                    above_exists & right_exists, channel_exists,
                )  # fmt: skip
                bottom_left = _corner(
                    value_ptr, grad_value_ptr, below, grad, below_grad, left_weight,
                    below_exists & left_exists, channel_exists,
                )  # fmt: skip
                bottom_right = _corner(
                    value_ptr, grad_value_ptr, below + H * D, grad, below_grad, right_weight,
                    below_exists & right_exists, channel_exists,
                )  # fmt: skip
                upper = top_left * left_weight + top_right * right_weight
                lower = bottom_left * left_weight + bottom_right * right_weight
                across = (top_right - top_left) * top_weight
                across += (bottom_right - bottom_left) * bottom_weight
                grad_x = across * weight * w.to(tl.float32)
                grad_y = (lower - upper) * weight * h.to(tl.float32)
                grad_weight = upper * top_weight + lower * bottom_weight
                tl.store(grad_locations_ptr + sample * 2, grad_x, mask=row_exists)
                tl.store(grad_locations_ptr + sample * 2 + 1, grad_y, mask=row_exists)
                tl.store(grad_weights_ptr + sample, grad_weight, mask=row_exists)
        start += h * w


@triton.jit
def _corner(
    value_ptr, grad_value_ptr, offsets, grad, weighted_grad, weight, exists, channel_exists
):
    """Add one corner's gradient; return grad . value of its pixel, [R], 0 where there is none."""
    mask = exists[:, None] & channel_exists[None, :]
    pixel = tl.load(value_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    share = weighted_grad * weight[:, None]
    tl.atomic_add(grad_value_ptr + offsets, share, mask=mask, sem="relaxed")
    return tl.sum(pixel * grad, axis=1)
