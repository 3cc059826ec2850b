"""Forward of deformable attention in Triton; `reference.py` says what it computes.

The four pixels of 8 samples are read at once, 16 bytes a lane, and sums stay in fp32 registers
until the one store. README.md beside this file explains the layout and what it costs.
"""

# the body of a kernel is Triton's language, which type checkers read as Python
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from detr_kernels.deform_attn.triton_common import (
    OUTSIDE,
    axis_corners,
    level_size,
    plan,
    query_rows,
)
from detr_kernels.deform_attn.triton_samples import (
    chunk_points,
    frame,
    load_logits,
    load_pairs,
    point_exists,
    softmax_terms,
)


def forward(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Arguments as in `deform_attn`, locations and weights in fp32, shapes int64 there too.

    Returns [B, Q, H * D] in value's dtype. Launches one kernel and waits for nothing.
    """
    return _launch(value, shapes, locations, weights, None)


def forward_fused(
    value: Tensor, shapes: Tensor, offsets: Tensor, logits: Tensor, reference: Tensor
) -> Tensor:
    """The same from a layer's raw outputs: softmax and sampling locations are made in the kernel.

    offsets: [B, Q, H, L, P, 2] and logits: [B, Q, H, L, P], fp32, fp16 or bf16.
    reference: [B, Q, L, 2] (x, y) or [B, Q, L, 4] (cx, cy, w, h), fp32. Around a point offsets
        count the level's pixels; around a box an offset of P reaches its edge.

    Returns [B, Q, H * D] in value's dtype. Arithmetic is fp32; launches one kernel.
    """
    return _launch(value, shapes, offsets, logits, reference)


def _launch(
    value: Tensor, shapes: Tensor, coordinates: Tensor, scores: Tensor, reference: Tensor | None
) -> Tensor:
    batch, pixels, heads, dim = value.shape
    queries = scores.shape[1]
    output = torch.empty(batch, queries, heads * dim, dtype=value.dtype, device=value.device)
    if output.numel() == 0:
        return output
    if pixels == 0 or scores.numel() == 0:
        return output.zero_()
    if reference is not None and reference.stride(-1) != 1:
        reference = reference.contiguous()
    places = (0, 0, 0) if reference is None else reference.stride()[:3]
    coordinates, coordinate_stride = query_rows(coordinates)
    scores, score_stride = query_rows(scores)
    strides = (coordinate_stride, score_stride, places[1] + places[2])
    launch = plan("forward", value, scores.shape, max(strides))
    # a launch goes to the current GPU, which need not be the tensors'
    with torch.cuda.device_of(value):
        _forward_kernel[launch.grid](
            value.contiguous(),
            shapes.contiguous(),
            coordinates,
            scores,
            scores if reference is None else reference,
            output,
            pixels,
            queries,
            launch.blocks,
            *places,
            COORDINATE_STRIDE=coordinate_stride,
            SCORE_STRIDE=score_stride,
            COLUMNS=shapes.shape[1],
            FUSED=reference is not None,
            BOX=reference is not None and reference.shape[-1] == 4,
            **launch.constants,
        )
    return output


@triton.jit(do_not_specialize=["S", "Q", "blocks", "reference_b", "reference_q", "reference_l"])
def _forward_kernel(
    value_ptr,  # [B, S, H, D]
    shapes_ptr,  # [L, COLUMNS] int64, (h, w) or (h, w, start)
    coordinates_ptr,  # locations [B, Q, H, L, P, 2] fp32, or offsets
    scores_ptr,  # weights [B, Q, H, L, P] fp32, or logits
    reference_ptr,  # [B, Q, L, 2 or 4] fp32 where FUSED
    output_ptr,  # [B, Q, H, D]
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
    image = tl.program_id(1).to(tl.int64)
    value_ptr += image * S * (H * D)
    coordinates_ptr += image * Q * COORDINATE_STRIDE
    scores_ptr += image * Q * SCORE_STRIDE
    reference_ptr += image * reference_b
    output_ptr += image * Q * (H * D)

    place = tl.arange(0, BLOCK_P * BLOCK_R)  # [J]
    point = place // BLOCK_R
    channel = tl.arange(0, BLOCK_D)
    last = Q * H - 1
    for block in range(blocks):
        first = (tl.program_id(0) * blocks + block) * BLOCK_R
        # rows past the end repeat the last one and are not stored
        row = tl.minimum(first + place % BLOCK_R, last)
        if WIDE:
            row = row.to(tl.int64)
        query, head = row // H, row % H
        coordinates = query * COORDINATE_STRIDE + head * (L * P * 2)
        scores = query * SCORE_STRIDE + head * (L * P)
        reference = query * reference_q
        pixels = value_ptr + (head * D)[:, None] + channel[None, :]  # [J, D]
        if FUSED:
            every = tl.arange(0, triton.next_power_of_2(chunks))[:, None]
            logits = load_logits(scores_ptr + scores, every, point[None, :], chunks, P, BLOCK_P)
            largest, inverse_sum = softmax_terms(logits, BLOCK_P, BLOCK_R)

        total = tl.zeros([BLOCK_P * BLOCK_R, BLOCK_D], dtype=tl.float32)
        start = tl.zeros([], dtype=tl.int64)
        sample = chunk_points(0, point, P, BLOCK_P)
        next_pairs = load_pairs(coordinates_ptr + (coordinates + sample * 2))
        next_scores = tl.load(scores_ptr + (scores + sample))
        for chunk in range(chunks):
            level = chunk // steps
            h, w, level_start, stop, exists = level_size(shapes_ptr, level, start, S, COLUMNS)
            if chunk % steps == steps - 1:
                start = stop
            pairs, weight = next_pairs, next_scores.to(tl.float32)
            # the next chunk's travel while this one's pixels do
            sample = chunk_points(tl.minimum(chunk + 1, chunks - 1), point, P, BLOCK_P)
            next_pairs = load_pairs(coordinates_ptr + (coordinates + sample * 2))
            next_scores = tl.load(scores_ptr + (scores + sample))
            x, y = tl.split(pairs.to(tl.float32))
            origin_x, origin_y, span_x, span_y = frame(
                reference_ptr + (reference + level * reference_l), w, h, P, FUSED, BOX
            )
            x, y = x * span_x + origin_x, y * span_y + origin_y
            if FUSED:
                weight = tl.exp(weight - largest) * inverse_sum
            if P % BLOCK_P:
                exists = exists & point_exists(chunk, point, P, BLOCK_P)
            x = tl.where(exists, x, OUTSIDE)
            left, left_weight, right_weight = axis_corners(x, w)
            top, top_weight, bottom_weight = axis_corners(y, h)
            pixel = level_start + top * w + left
            upper, lower = weight * top_weight, weight * bottom_weight
            above = pixels + pixel.to(tl.int64)[:, None] * (H * D)
            below = above + tl.where(h > 1, w, 0) * (H * D)
            aside = tl.where(w > 1, H * D, 0)
            total += _corner(above, upper * left_weight, channel, D, BLOCK_D)
            total += _corner(above + aside, upper * right_weight, channel, D, BLOCK_D)
            total += _corner(below, lower * left_weight, channel, D, BLOCK_D)
            total += _corner(below + aside, lower * right_weight, channel, D, BLOCK_D)

        output = tl.sum(tl.reshape(total, [BLOCK_P, BLOCK_R, BLOCK_D]), axis=0)
        row = first + tl.arange(0, BLOCK_R)
        stored = (row <= last)[:, None] & (channel < D)[None, :]
        if WIDE:
            row = row.to(tl.int64)
        offsets = (row * D)[:, None] + channel[None, :]
        tl.store(output_ptr + offsets, output.to(output_ptr.dtype.element_ty), mask=stored)


@triton.jit
def _corner(pointers, weight, channel, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One corner's share of the output, [J, D]."""
    if D == BLOCK_D:
        pixel = tl.load(pointers)
    else:
        pixel = tl.load(pointers, mask=(channel < D)[None, :], other=0.0)
    return pixel.to(tl.float32) * weight[:, None]
