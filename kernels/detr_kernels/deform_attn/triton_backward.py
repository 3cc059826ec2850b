"""Backward of deformable attention in Triton: all gradients in one kernel.

Every sample is read again rather than kept. A row's products with its four pixels give the
gradients of its coordinates and score, which are stored; the gradient of the pixels is added to an
fp32 buffer with relaxed atomics (nothing reads it before the kernel ends, so no fence is needed;
Triton's default semantics would flush L1 around each of them). README.md beside this file has the
mathematics.
"""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from detr_kernels.deform_attn.triton_common import (
    OUTSIDE,
    axis_corners,
    axis_slopes,
    level_size,
    plan,
    query_rows,
)
from detr_kernels.deform_attn.triton_deterministic import sum_corners
from detr_kernels.deform_attn.triton_samples import (
    chunk_points,
    frame,
    load_logits,
    load_pairs,
    point_exists,
    row_sums,
    softmax_terms,
)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
    deterministic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value (in its dtype, summed in fp32), locations and weights (fp32).

    grad_output: [B, Q, H * D]; the rest as in `triton_forward.forward`. The order of the sums into
    value's gradient differs from run to run, so its last bits do, unless deterministic
    (`triton_deterministic` says what that costs).
    """
    grad_value, grad_locations, grad_weights, _ = _launch(
        grad_output, value, shapes, locations, weights, None, deterministic, False
    )
    return grad_value, grad_locations, grad_weights


def backward_fused(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    deterministic: bool = False,
    needs_reference: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of value, offsets and logits, each in its own dtype, and of the reference (fp32).

    Arguments as in `backward` and `triton_forward.forward_fused`. The reference's gradient, a sum
    over heads and points, is made only where needs_reference, else None.
    """
    return _launch(
        grad_output, value, shapes, offsets, logits, reference, deterministic, needs_reference
    )


def _launch(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    coordinates: Tensor,
    scores: Tensor,
    reference: Tensor | None,
    deterministic: bool,
    needs_reference: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    device, fp32 = value.device, torch.float32
    if scores.numel() == 0 or value.numel() == 0:
        return _nothing(value, coordinates, scores, reference if needs_reference else None)
    grad_output = grad_output.contiguous()
    # atomics accumulate into this one; the others are written once everywhere
    make = torch.empty if deterministic else torch.zeros
    grad_value = make(value.shape, dtype=fp32, device=device)
    grad_coordinates = torch.empty(coordinates.shape, dtype=coordinates.dtype, device=device)
    grad_scores = torch.empty(scores.shape, dtype=scores.dtype, device=device)
    grad_reference = corner_pixels = corner_weights = None
    if reference is not None and needs_reference:
        sizes = (*scores.shape[:-1], reference.shape[-1])
        grad_reference = torch.empty(sizes, dtype=fp32, device=device)
    if deterministic:
        corner_pixels = torch.empty((*scores.shape, 4), dtype=torch.int32, device=device)
        corner_weights = torch.empty((*scores.shape, 4), dtype=fp32, device=device)
    if reference is not None and reference.stride(-1) != 1:
        reference = reference.contiguous()
    places = (0, 0, 0) if reference is None else reference.stride()[:3]
    coordinates, coordinate_stride = query_rows(coordinates)
    scores, score_stride = query_rows(scores)
    strides = (coordinate_stride, score_stride, places[1] + places[2])
    launch = plan("backward", value, scores.shape, max(strides))
    # a launch goes to the current GPU, which need not be the tensors'
    with torch.cuda.device_of(value):
        _backward_kernel[launch.grid](
            grad_output,
            value.contiguous(),
            shapes.contiguous(),
            coordinates,
            scores,
            scores if reference is None else reference,
            grad_value if corner_weights is None else corner_weights,
            grad_value if corner_pixels is None else corner_pixels,
            grad_coordinates,
            grad_scores,
            grad_value if grad_reference is None else grad_reference,
            value.shape[1],
            scores.shape[1],
            launch.blocks,
            *places,
            COORDINATE_STRIDE=coordinate_stride,
            SCORE_STRIDE=score_stride,
            COLUMNS=shapes.shape[1],
            FUSED=reference is not None,
            BOX=reference is not None and reference.shape[-1] == 4,
            NEEDS_REFERENCE=grad_reference is not None,
            DETERMINISTIC=deterministic,
            **launch.constants,
        )
        if corner_pixels is not None and corner_weights is not None:
            sum_corners(corner_pixels, corner_weights, grad_output, grad_value)
    if grad_reference is not None:
        grad_reference = grad_reference.sum(dim=2)
    return grad_value.to(value.dtype), grad_coordinates, grad_scores, grad_reference


def _nothing(
    value: Tensor, coordinates: Tensor, scores: Tensor, reference: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients where there are no samples or no pixels."""
    grads = [
        torch.zeros(t.shape, dtype=t.dtype, device=value.device)
        for t in (value, coordinates, scores)
    ]
    grad_reference = None if reference is None else torch.zeros_like(reference)
    return grads[0], grads[1], grads[2], grad_reference


@triton.jit(do_not_specialize=["S", "Q", "blocks", "reference_b", "reference_q", "reference_l"])
def _backward_kernel(
    grad_output_ptr,  # [B, Q, H, D]
    value_ptr,  # [B, S, H, D]
    shapes_ptr,  # [L, COLUMNS] int64, (h, w) or (h, w, start)
    coordinates_ptr,  # locations [B, Q, H, L, P, 2] fp32, or offsets
    scores_ptr,  # weights [B, Q, H, L, P] fp32, or logits
    reference_ptr,  # [B, Q, L, 2 or 4] fp32 where FUSED
    grad_value_ptr,  # [B, S, H, D] fp32, zeros; DETERMINISTIC: weights [B, Q, H, L, P, 4] fp32
    corner_pixels_ptr,  # DETERMINISTIC: pixel * H + head, [B, Q, H, L, P, 4] int32
    grad_coordinates_ptr,  # [B, Q, H, L, P, 2]
    grad_scores_ptr,  # [B, Q, H, L, P]
    grad_reference_ptr,  # [B, Q, H, L, 2 or 4] fp32 where NEEDS_REFERENCE
    S,
    Q,
    blocks,
    reference_b,
    reference_q,
    reference_l,
    COORDINATE_STRIDE: tl.constexpr,
    SCORE_STRIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
    FUSED: tl.constexpr,
    BOX: tl.constexpr,
    NEEDS_REFERENCE: tl.constexpr,
    DETERMINISTIC: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    L: tl.constexpr,
    P: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WIDE: tl.constexpr,
):
    steps: tl.constexpr = (P + BLOCK_P - 1) // BLOCK_P
    chunks: tl.constexpr = L * steps
    block_n: tl.constexpr = triton.next_power_of_2(chunks)
    block_j: tl.constexpr = BLOCK_P * BLOCK_R
    ends: tl.constexpr = 4 if BOX else 2
    image = tl.program_id(1).to(tl.int64)
    grad_output_ptr += image * Q * (H * D)
    value_ptr += image * S * (H * D)
    coordinates_ptr += image * Q * COORDINATE_STRIDE
    scores_ptr += image * Q * SCORE_STRIDE
    reference_ptr += image * reference_b
    if DETERMINISTIC:
        grad_value_ptr += image * Q * (H * L * P * 4)
        corner_pixels_ptr += image * Q * (H * L * P * 4)
    else:
        grad_value_ptr += image * S * (H * D)
    grad_coordinates_ptr += image * Q * (H * L * P * 2)
    grad_scores_ptr += image * Q * (H * L * P)
    grad_reference_ptr += image * Q * (H * L * ends)

    place = tl.arange(0, block_j)  # [J]
    point = place // BLOCK_R
    every = tl.arange(0, block_n)[:, None]
    channel = tl.arange(0, BLOCK_D)
    last = Q * H - 1
    for block in range(blocks):
        first = (tl.program_id(0) * blocks + block) * BLOCK_R
        # rows past the end repeat the last one, add nothing and store nothing
        row = first + place % BLOCK_R
        row_exists = row <= last
        row = tl.minimum(row, last)
        if WIDE:
            row = row.to(tl.int64)
        query, head = row // H, row % H
        coordinates = query * COORDINATE_STRIDE + head * (L * P * 2)
        scores = query * SCORE_STRIDE + head * (L * P)
        reference = query * reference_q
        head_channel = (head * D)[:, None] + channel[None, :]  # [J, D]
        grad = _load_rows(grad_output_ptr, first, last, channel, D, BLOCK_R, BLOCK_D, WIDE)
        grad = tl.broadcast_to(grad[None, :, :], [BLOCK_P, BLOCK_R, BLOCK_D])
        grad = tl.reshape(grad, [block_j, BLOCK_D])
        if FUSED:
            logits = load_logits(scores_ptr + scores, every, point[None, :], chunks, P, BLOCK_P)
            largest, inverse_sum = softmax_terms(logits, BLOCK_P, BLOCK_R)
            grad_weights = tl.zeros([block_n, block_j], dtype=tl.float32)
        if NEEDS_REFERENCE:
            sum_x = tl.zeros([block_j], dtype=tl.float32)
            sum_y, sum_w, sum_h = sum_x, sum_x, sum_x

        start = tl.zeros([], dtype=tl.int64)
        sample = chunk_points(0, point, P, BLOCK_P)
        next_pairs = load_pairs(coordinates_ptr + (coordinates + sample * 2))
        next_scores = tl.load(scores_ptr + (scores + sample))
        for chunk in range(chunks):
            level = chunk // steps
            h, w, level_start, stop, exists = level_size(shapes_ptr, level, start, S, COLUMNS)
            pairs, weight = next_pairs, next_scores.to(tl.float32)
            # the next chunk's travel while this one's pixels do
            sample = chunk_points(tl.minimum(chunk + 1, chunks - 1), point, P, BLOCK_P)
            next_pairs = load_pairs(coordinates_ptr + (coordinates + sample * 2))
            next_scores = tl.load(scores_ptr + (scores + sample))
            coordinate_x, coordinate_y = tl.split(pairs.to(tl.float32))
            origin_x, origin_y, span_x, span_y = frame(
                reference_ptr + (reference + level * reference_l), w, h, P, FUSED, BOX
            )
            x, y = coordinate_x * span_x + origin_x, coordinate_y * span_y + origin_y
            if FUSED:
                weight = tl.exp(weight - largest) * inverse_sum
            stored = row_exists
            if P % BLOCK_P:
                stored = row_exists & point_exists(chunk, point, P, BLOCK_P)
            # outside, a sample weighs nothing and has no slope
            x = tl.where(stored & exists, x, OUTSIDE)
            left, left_weight, right_weight = axis_corners(x, w)
            top, top_weight, bottom_weight = axis_corners(y, h)
            pixel = level_start + top * w + left
            down, aside = tl.where(h > 1, w, 0), tl.where(w > 1, 1, 0)
            upper, lower = weight * top_weight, weight * bottom_weight
            above = pixel.to(tl.int64)[:, None] * (H * D) + head_channel
            step_x = aside * (H * D)
            top_left, top_right = _pixel_pair(
                value_ptr, grad_value_ptr, above, step_x, grad, upper * left_weight,
                upper * right_weight, channel, D, BLOCK_D, not DETERMINISTIC,
            )  # fmt: skip
            bottom_left, bottom_right = _pixel_pair(
                value_ptr, grad_value_ptr, above + down * (H * D), step_x, grad,
                lower * left_weight, lower * right_weight, channel, D, BLOCK_D, not DETERMINISTIC,
            )  # fmt: skip
            own = row * (L * P) + chunk_points(chunk, point, P, BLOCK_P)
            if DETERMINISTIC:
                _note_pair(grad_value_ptr, corner_pixels_ptr, own * 4, upper * left_weight,
                           upper * right_weight, pixel * H + head, aside * H, stored)  # fmt: skip
                _note_pair(grad_value_ptr, corner_pixels_ptr, own * 4 + 2, lower * left_weight,
                           lower * right_weight, (pixel + down) * H + head, aside * H,
                           stored)  # fmt: skip

            left_slope, right_slope = axis_slopes(x, w)
            top_slope, bottom_slope = axis_slopes(y, h)
            left_product = top_left * top_weight + bottom_left * bottom_weight
            right_product = top_right * top_weight + bottom_right * bottom_weight
            top_product = top_left * left_weight + top_right * right_weight
            bottom_product = bottom_left * left_weight + bottom_right * right_weight
            along_x = weight * (left_product * left_slope + right_product * right_slope)
            along_y = weight * (top_product * top_slope + bottom_product * bottom_slope)
            grad_weight = top_product * top_weight + bottom_product * bottom_weight
            grad_pairs = tl.join(along_x * span_x, along_y * span_y)
            tl.store(
                grad_coordinates_ptr + (own * 2)[:, None] + tl.arange(0, 2)[None, :],
                grad_pairs.to(grad_coordinates_ptr.dtype.element_ty),
                mask=stored[:, None],
            )
            if FUSED:
                grad_weights = tl.where(every == chunk, grad_weight[None, :], grad_weights)
            else:
                tl.store(grad_scores_ptr + own, grad_weight, mask=stored)
            if NEEDS_REFERENCE:
                sum_x, sum_y = sum_x + along_x, sum_y + along_y
                if BOX:
                    sum_w, sum_h = sum_w + along_x * coordinate_x, sum_h + along_y * coordinate_y
            if chunk % steps == steps - 1:
                start = stop
                if NEEDS_REFERENCE:
                    width, height = w.to(tl.float32), h.to(tl.float32)
                    into = grad_reference_ptr + (row * L + level) * ends
                    once = row_exists & (point == 0)
                    tl.store(into, row_sums(sum_x, BLOCK_P, BLOCK_R) * width, mask=once)
                    tl.store(into + 1, row_sums(sum_y, BLOCK_P, BLOCK_R) * height, mask=once)
                    if BOX:
                        grad_w = row_sums(sum_w, BLOCK_P, BLOCK_R) * (width * (0.5 / P))
                        grad_h = row_sums(sum_h, BLOCK_P, BLOCK_R) * (height * (0.5 / P))
                        tl.store(into + 2, grad_w, mask=once)
                        tl.store(into + 3, grad_h, mask=once)
                    sum_x = tl.zeros([block_j], dtype=tl.float32)
                    sum_y, sum_w, sum_h = sum_x, sum_x, sum_x

        if FUSED:
            logits = load_logits(scores_ptr + scores, every, point[None, :], chunks, P, BLOCK_P)
            weights = tl.exp(logits - largest[None, :]) * inverse_sum[None, :]
            mean = row_sums(tl.sum(weights * grad_weights, axis=0), BLOCK_P, BLOCK_R)
            grad_logits = weights * (grad_weights - mean[None, :])
            own = (row * (L * P))[None, :] + chunk_points(every, point[None, :], P, BLOCK_P)
            stored_logits = (every < chunks) & point_exists(every, point[None, :], P, BLOCK_P)
            tl.store(
                grad_scores_ptr + own,
                grad_logits.to(grad_scores_ptr.dtype.element_ty),
                mask=stored_logits & row_exists[None, :],
            )


@triton.jit
def _load_rows(rows_ptr, first, last, channel, D: tl.constexpr, BLOCK_R: tl.constexpr,
               BLOCK_D: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Rows of [Q * H, D] from `first` on, [R, D] in fp32; past the end the last one again."""
    row = tl.minimum(first + tl.arange(0, BLOCK_R), last)
    if WIDE:
        row = row.to(tl.int64)
    pointers = rows_ptr + (row * D)[:, None] + channel[None, :]
    mask = (channel < D)[None, :] if D < BLOCK_D else None
    return tl.load(pointers, mask=mask, other=None if mask is None else 0.0).to(tl.float32)


@triton.jit
def _pixel_pair(value_ptr, grad_value_ptr, offsets, step, grad, left_weight, right_weight, channel,
                D: tl.constexpr, BLOCK_D: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """grad . value of two neighbours in a row, [J] each, adding their shares of the gradient.

    The additions wait for no load, so they leave while the loads travel.
    """
    left = _load_pixel(value_ptr + offsets, channel, D, BLOCK_D)
    right = _load_pixel(value_ptr + offsets + step, channel, D, BLOCK_D)
    if ADD:
        _add(grad_value_ptr + offsets, grad, left_weight, channel, D, BLOCK_D)
        _add(grad_value_ptr + offsets + step, grad, right_weight, channel, D, BLOCK_D)
    left, right = left.to(tl.float32) * grad, right.to(tl.float32) * grad
    return tl.sum(left, axis=1), tl.sum(right, axis=1)


@triton.jit
def _load_pixel(pointers, channel, D: tl.constexpr, BLOCK_D: tl.constexpr):
    if D == BLOCK_D:
        pixel = tl.load(pointers)
    else:
        pixel = tl.load(pointers, mask=(channel < D)[None, :], other=0.0)
    return pixel


@triton.jit
def _add(pointers, grad, weight, channel, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Add one corner's share of the gradient, unless it weighs nothing."""
    added = (weight != 0.0)[:, None]
    if D < BLOCK_D:
        added &= (channel < D)[None, :]
    tl.atomic_add(pointers, grad * weight[:, None], mask=added, sem="relaxed")


@triton.jit
def _note_pair(weights_ptr, pixels_ptr, corner, left_weight, right_weight, pixel, step, stored):
    """Write down weights and pixels of two neighbours, for `triton_deterministic`."""
    tl.store(weights_ptr + corner, left_weight, mask=stored)
    tl.store(weights_ptr + corner + 1, right_weight, mask=stored)
    tl.store(pixels_ptr + corner, pixel.to(tl.int32), mask=stored)
    tl.store(pixels_ptr + corner + 1, (pixel + step).to(tl.int32), mask=stored)
