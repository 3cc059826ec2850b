"""Deformable attention on a CPU as two loops that numba compiles; `reference.py` says what it is.

One task is one head of one image: its part of the value table stays in the cache, and no other task
writes its part of the gradient, so sums need no locks and come in the same order whatever the
number of threads. A row is one (query, head) with K = L * P samples. First the row's samples are
placed, which leaves corners and weights in a few hundred bytes; then the channels are run through.

Tables are flat or [rows, columns]. `sizes` [L, 3] has (h, w, start), `dims` is (S, Q, H, D, P).
`coordinates` [B * Q * H, K * 2] and `scores` [B * Q * H, K] are locations and weights where
`reference` [B * Q, 0] has no columns, else offsets and logits: around points with L * 2 columns,
boxes with L * 4.

Imported only where numba is there: `numba_cpu.py` does that.
"""

# what is compiled is numba's language, which type checkers read as Python
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

_OPTIONS = {"nogil": True, "forceinline": True, "error_model": "numpy"}
# products may be fused with sums; NaN and Inf keep their meaning
_FUSED = {"contract", "nsz"}
# and sums reordered to fit vector registers. Only for loops that write no memory: before one that
# writes, compiled code asks whether what it writes lies near what it reads, and takes the loop
# without vectors if so. Were the order free there, the same numbers would round differently from
# one call to the next, with where the allocator put them.
_REORDERED = _FUSED | {"reassoc"}
# unsigned: Python's negative indices would put a test into every access
_index = np.uint64


def compiled(function: Callable[..., Any], fastmath: set[str] = _FUSED) -> Callable[..., Any]:
    """Compiled at the first call for each dtype, and kept on disk for later processes."""
    try:
        return njit(cache=True, fastmath=fastmath, **_OPTIONS)(function)
    except RuntimeError:
        # neither the package's folder nor the user's cache can be written
        return njit(fastmath=fastmath, **_OPTIONS)(function)


def summing(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, for a function that only reads and adds up: in any order."""
    return compiled(function, _REORDERED)


@summing
def _total(numbers):
    total = numbers.dtype.type(0)
    for k in range(numbers.shape[0]):
        total += numbers[k]
    return total


@summing
def _product(numbers, others, row):
    """The scalar product of `numbers` with a row of `others`."""
    total = numbers.dtype.type(0)
    for k in range(numbers.shape[0]):
        total += numbers[k] * others[row, k]
    return total


@summing
def _corner_products(grad_output, out, value, a, b, c, d, channels):
    """Scalar products of the output's gradient with the four pixels that begin at a, b, c, d."""
    zero = value.dtype.type(0)
    dot_a, dot_b, dot_c, dot_d = zero, zero, zero, zero
    for i in range(channels):
        grad = grad_output[out + i]
        dot_a += grad * value[a + i]
        dot_b += grad * value[b + i]
        dot_c += grad * value[c + i]
        dot_d += grad * value[d + i]
    return dot_a, dot_b, dot_c, dot_d


@compiled
def _weigh_row(scores, row, fused, attention):
    """attention[:K] = the row's weights: its scores, or their softmax."""
    samples = scores.shape[1]
    if not fused:
        for k in range(samples):
            attention[k] = scores[row, k]
        return
    largest = scores[row, 0]
    for k in range(samples):
        largest = max(largest, scores[row, k])
    for k in range(samples):
        attention[k] = np.exp(scores[row, k] - largest)
    scale = attention.dtype.type(1) / _total(attention)
    for k in range(samples):
        attention[k] *= scale


@compiled
def _place_row(
    coordinates, reference, sizes, dims, image, query, head, sample, corner, weights, slopes
):  # fmt: skip
    """Find the samples that touch the map: their number n, and for each of those

    sample[:n]: its place among the row's K.
    corner[:n]: where its upper left pixel begins in the value table, and the steps from there to
        the right and down, 0 on a map of one column or row.
    weights[:n]: of the left, right, upper and lower pixels; hats around each pixel, so that no
        pixel outside the map is among the four.
    slopes[:n]: of these weights, in the coordinate; then what a coordinate of 1 moves the
        sample by, x and y, in pixels. No rows: not wanted.
    """
    pixels, queries, heads, dim, points = dims
    levels = sizes.shape[0]
    real = coordinates.dtype.type
    zero, half, one = real(0), real(0.5), real(1)
    columns = reference.shape[1] // levels
    wanted = slopes.shape[0] > 0
    place = image * queries + query
    row = place * heads + head
    stride = heads * dim
    n = _index(0)
    k = _index(0)
    for level in range(levels):
        height, width = sizes[level, 0], sizes[level, 1]
        base = ((image * pixels + sizes[level, 2]) * heads + head) * dim
        high, wide = real(height), real(width)
        origin_x, origin_y, span_x, span_y = -half, -half, wide, high
        if columns:
            origin_x = reference[place, level * columns] * wide - half
            origin_y = reference[place, level * columns + 1] * high - half
            span_x, span_y = one, one
        if columns == 4:
            span_x = reference[place, level * 4 + 2] * wide * (half / real(points))
            span_y = reference[place, level * 4 + 3] * high * (half / real(points))
        # a map of one pixel has no second one
        second_x, second_y = real(min(width - 1, 1)), real(min(height - 1, 1))
        aside, below = min(width - 1, 1) * stride, min(height - 1, 1) * width * stride
        for _ in range(points):
            x = coordinates[row, k + k] * span_x + origin_x
            y = coordinates[row, k + k + _index(1)] * span_y + origin_y
            outside = (x < -one) | (x >= wide) | (y < -one) | (y >= high)
            # these orders of arguments make a number of NaN, which spoils the output by its weight
            left = max(zero, min(wide - one - second_x, np.floor(x)))
            top = max(zero, min(high - one - second_y, np.floor(y)))
            x -= left
            y -= top
            sample[n] = k
            corner[n, 0] = base + (np.int64(top) * width + np.int64(left)) * stride
            corner[n, 1] = aside
            corner[n, 2] = below
            weights[n, 0] = max(one - abs(x), zero)
            weights[n, 1] = max(one - abs(x - one), zero) * second_x
            weights[n, 2] = max(one - abs(y), zero)
            weights[n, 3] = max(one - abs(y - one), zero) * second_y
            if wanted:
                # from the right where a hat has a corner, as floor has it
                slopes[n, 0] = one if x < zero else (-one if x < one else zero)
                slopes[n, 1] = (zero if x < zero else (one if x < one else -one)) * second_x
                slopes[n, 2] = one if y < zero else (-one if y < one else zero)
                slopes[n, 3] = (zero if y < zero else (one if y < one else -one)) * second_y
                slopes[n, 4] = span_x
                slopes[n, 5] = span_y
            k += _index(1)
            # overwritten by the next where it is outside: a branch would be guessed wrong
            n += _index(0) if outside else _index(1)
    return n


@compiled
def forward(value, sizes, coordinates, scores, reference, output, dims, first, last):
    """output [B * Q * H * D] of the tasks image * H + head from `first` to before `last`."""
    _, queries, heads, dim, _ = dims
    channels = _index(dim)
    samples = scores.shape[1]
    fused = reference.shape[1] > 0
    attention = np.empty(samples, scores.dtype)
    sample = np.empty(samples, np.uint64)
    corner = np.empty((samples, 3), np.uint64)
    weights = np.empty((samples, 4), scores.dtype)
    slopes = np.empty((0, 6), scores.dtype)
    for task in range(first, last):
        image, head = task // heads, task % heads
        for query in range(queries):
            row = (image * queries + query) * heads + head
            out = _index(row * dim)
            for c in range(channels):
                output[out + c] = 0
            _weigh_row(scores, row, fused, attention)
            n = _place_row(
                coordinates, reference, sizes, dims, image, query, head,
                sample, corner, weights, slopes,
            )  # fmt: skip
            for j in range(n):
                a = corner[j, 0]
                b, c = a + corner[j, 1], a + corner[j, 2]
                d = b + corner[j, 2]
                upper = attention[sample[j]] * weights[j, 2]
                lower = attention[sample[j]] * weights[j, 3]
                weight_a, weight_b = upper * weights[j, 0], upper * weights[j, 1]
                weight_c, weight_d = lower * weights[j, 0], lower * weights[j, 1]
                for i in range(channels):
                    output[out + i] += (
                        weight_a * value[a + i]
                        + weight_b * value[b + i]
                        + weight_c * value[c + i]
                        + weight_d * value[d + i]
                    )


@compiled
def backward(
    grad_output, value, sizes, coordinates, scores, reference,
    grad_value, grad_coordinates, grad_scores, grad_reference, dims, first, last,
):  # fmt: skip
    """The gradients of the tasks from `first` to before `last`, each laid out as what it is of.

    grad_reference: [B * Q * H, L * 2 or L * 4], a head's share of each; no rows: not wanted.
    """
    pixels, queries, heads, dim, points = dims
    channels = _index(dim)
    samples = scores.shape[1]
    real = scores.dtype.type
    half = real(0.5)
    columns = reference.shape[1] // sizes.shape[0]
    fused = columns > 0
    attention = np.empty(samples, scores.dtype)
    sample = np.empty(samples, np.uint64)
    corner = np.empty((samples, 3), np.uint64)
    weights = np.empty((samples, 4), scores.dtype)
    slopes = np.empty((samples, 6), scores.dtype)
    for task in range(first, last):
        image, head = task // heads, task % heads
        for pixel in range(pixels):
            start = _index(((image * pixels + pixel) * heads + head) * dim)
            for i in range(channels):
                grad_value[start + i] = 0
        for query in range(queries):
            row = (image * queries + query) * heads + head
            out = _index(row * dim)
            for k in range(samples):
                grad_scores[row, k] = 0
                grad_coordinates[row, 2 * k] = 0
                grad_coordinates[row, 2 * k + 1] = 0
            _weigh_row(scores, row, fused, attention)
            n = _place_row(
                coordinates, reference, sizes, dims, image, query, head,
                sample, corner, weights, slopes,
            )  # fmt: skip
            for j in range(n):
                a = corner[j, 0]
                b, c = a + corner[j, 1], a + corner[j, 2]
                d = b + corner[j, 2]
                k = sample[j]
                dot_a, dot_b, dot_c, dot_d = _corner_products(
                    grad_output, out, value, a, b, c, d, channels
                )
                left, right, top, bottom = (
                    weights[j, 0],
                    weights[j, 1],
                    weights[j, 2],
                    weights[j, 3],
                )
                above = dot_a * left + dot_b * right
                below = dot_c * left + dot_d * right
                before = dot_a * top + dot_c * bottom
                after = dot_b * top + dot_d * bottom
                grad_scores[row, k] = above * top + below * bottom
                weight = attention[k]
                moved_x = weight * (before * slopes[j, 0] + after * slopes[j, 1])
                moved_y = weight * (above * slopes[j, 2] + below * slopes[j, 3])
                grad_coordinates[row, k + k] = moved_x * slopes[j, 4]
                grad_coordinates[row, k + k + _index(1)] = moved_y * slopes[j, 5]
                upper, lower = weight * top, weight * bottom
                # a corner at a time: two of them may be one pixel
                share = upper * left
                for i in range(channels):
                    grad_value[a + i] += share * grad_output[out + i]
                share = upper * right
                for i in range(channels):
                    grad_value[b + i] += share * grad_output[out + i]
                share = lower * left
                for i in range(channels):
                    grad_value[c + i] += share * grad_output[out + i]
                share = lower * right
                for i in range(channels):
                    grad_value[d + i] += share * grad_output[out + i]
                if grad_reference.shape[0] > 0:
                    level = np.int64(k) // points
                    moved_x *= real(sizes[level, 1])
                    moved_y *= real(sizes[level, 0])
                    grad_reference[row, level * columns] += moved_x
                    grad_reference[row, level * columns + 1] += moved_y
                    if columns == 4:
                        share = half / real(points)
                        moved_x *= coordinates[row, k + k] * share
                        moved_y *= coordinates[row, k + k + _index(1)] * share
                        grad_reference[row, level * 4 + 2] += moved_x
                        grad_reference[row, level * 4 + 3] += moved_y
            if fused:
                mean = _product(attention, grad_scores, row)
                for k in range(samples):
                    grad_scores[row, k] = attention[k] * (grad_scores[row, k] - mean)
