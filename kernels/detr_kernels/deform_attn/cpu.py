"""The operator on a CPU, in plain torch, arranged for speed: forward and backward by hand.

The output of one (query, head) is a weighted sum of 4 * L * P rows of the value table: an embedding
bag, which torch computes fast. `reference.py` says what is computed; this file says it in an order
that suits caches. docs/kernels.md has the times of both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_kernels.deform_attn.levels import placed

# bilinear samples handled at once: bounds the working memory (about 40 MB in fp32), hardly the time
SAMPLES_AT_ONCE = 2**18
# fp32 counts rows exactly up to here
FLOAT32_INTEGERS = 2**24
# up to this many pixels per sampled corner of a query, dense products beat picking and sorting
DENSE_PIXELS_PER_CORNER = 24


@dataclass(frozen=True, slots=True)
class Levels:
    """Per sample of one (query, head), K = L * P of them: its level's size and place."""

    width: Tensor  # [K], of the compute dtype
    height: Tensor  # [K]
    start: Tensor  # [K] index of the level's first row in the value table


@dataclass(frozen=True, slots=True)
class Corners:
    """The four pixels around every sample; R = images * Q * H rows, K = L * P samples each.

    Corner order: top left, top right, bottom left, bottom right. A corner outside the map has
    weight 0 and points at some pixel inside it.
    """

    rows: Tensor  # [R, 4, K] integer, a row of the table that `_corners` was asked for
    left: Tensor  # [R, K] horizontal weight of the left corners, 0 where they are outside
    right: Tensor
    top: Tensor
    bottom: Tensor
    left_inside: Tensor  # [R, K] 1 or 0
    right_inside: Tensor
    top_inside: Tensor
    bottom_inside: Tensor

    def weights(self, attention: Tensor) -> Tensor:
        """attention [R, K] -> the weight of every corner row in the output, [R, 4, K]."""
        weights = attention.new_empty(self.rows.shape)
        upper, lower = attention * self.top, attention * self.bottom
        torch.mul(upper, self.left, out=weights[:, 0])
        torch.mul(upper, self.right, out=weights[:, 1])
        torch.mul(lower, self.left, out=weights[:, 2])
        torch.mul(lower, self.right, out=weights[:, 3])
        return weights


def forward(
    value: Tensor,
    shapes: Sequence[Sequence[int]],
    locations: Tensor,
    attention: Tensor,
) -> Tensor:
    """As `deform_attn_reference`, for tensors of one dtype, fp32 or fp64."""
    _, pixels, heads, dim = value.shape
    batch, queries, _, n_levels, points, _ = locations.shape
    if queries == 0:
        return value.new_empty(batch, 0, heads * dim)
    levels = _levels(shapes, points, locations.dtype)
    output = value.new_empty(batch, queries, heads * dim)
    samples = n_levels * points
    for chunk in _image_chunks(batch, queries * heads * samples):
        corners = _table_corners(locations[chunk], levels, pixels)
        weights = corners.weights(attention[chunk].reshape(-1, samples))
        bags = F.embedding_bag(
            corners.rows.flatten(1),
            value[chunk].reshape(-1, dim),
            per_sample_weights=weights.flatten(1),
            mode="sum",
        )
        output[chunk] = bags.view(-1, queries, heads * dim)
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Sequence[Sequence[int]],
    locations: Tensor,
    attention: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and attention weights, from grad_output [B, Q, H * D]."""
    _, pixels, heads, dim = value.shape
    batch, queries, _, n_levels, points, _ = locations.shape
    levels = _levels(shapes, points, locations.dtype)
    samples = n_levels * points
    grad_value = value.new_zeros(value.shape)
    grad_locations = locations.new_empty(locations.shape)
    grad_attention = attention.new_empty(attention.shape)
    if queries == 0:
        return grad_value, grad_locations, grad_attention
    dense = pixels <= DENSE_PIXELS_PER_CORNER * 4 * samples
    for chunk in _image_chunks(batch, queries * heads * samples):
        weighting = attention[chunk].reshape(-1, samples)
        grads = grad_output[chunk].reshape(-1, queries, heads, dim)
        if dense:
            corners = _corners(locations[chunk], levels)
            products = _dense
        else:
            corners = _table_corners(locations[chunk], levels, pixels)
            products = _sorted
        weights = corners.weights(weighting)
        dots = products(grads, value[chunk], corners.rows, weights, grad_value[chunk])
        grad_x, grad_y, grad_weight = _sample_gradients(corners, dots)
        flat = grad_locations[chunk].view(-1, samples, 2)
        torch.mul(grad_x.mul_(weighting), levels.width, out=flat[..., 0])
        torch.mul(grad_y.mul_(weighting), levels.height, out=flat[..., 1])
        grad_attention[chunk] = grad_weight.view_as(grad_attention[chunk])
    return grad_value, grad_locations, grad_attention


def _image_chunks(batch: int, samples_per_image: int) -> Iterator[slice]:
    step = max(1, SAMPLES_AT_ONCE // max(1, samples_per_image))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


def _levels(shapes: Sequence[Sequence[int]], points: int, dtype: torch.dtype) -> Levels:
    columns = zip(*placed(shapes), strict=True)
    height, width, start = (torch.tensor(c, dtype=dtype).repeat_interleave(points) for c in columns)
    return Levels(width, height, start)


def _axis(coordinate: Tensor, size: Tensor) -> tuple[Tensor, ...]:
    """One axis: near and far pixel (clamped), their weights, and 1 or 0 for inside or not."""
    position = (coordinate * size).sub_(0.5)
    near = position.floor()
    far_weight = position.sub_(near)
    far = near + 1
    first, last = near.new_zeros(()), size - 1
    # fmax and fmin take the number where the other is NaN: a NaN must become NaN in the output, by
    # its weight, and not an index
    near_clamped = torch.fmin(torch.fmax(near, first), last)
    far_clamped = torch.fmin(torch.fmax(far, first), last)
    near_inside = (near_clamped == near).to(near.dtype)
    far_inside = (far_clamped == far).to(near.dtype)
    near_weight = (1 - far_weight).mul_(near_inside)
    far_weight = far_weight.mul_(far_inside)
    return near_clamped, far_clamped, near_weight, far_weight, near_inside, far_inside


def _corners(
    locations: Tensor,
    levels: Levels,
    *,
    stride: int = 1,
    base: Tensor | None = None,
    n_rows: int = 0,
    dtype: torch.dtype = torch.int64,
) -> Corners:
    """Corners with rows pixel * stride + base [R, 1], of a table that has n_rows."""
    samples = levels.width.numel()
    flat = locations.reshape(-1, samples, 2)
    x0, x1, left, right, left_inside, right_inside = _axis(flat[..., 0], levels.width)
    y0, y1, top, bottom, top_inside, bottom_inside = _axis(flat[..., 1], levels.height)
    # rows are counted in floats, the fast type here
    exact = torch.float64 if n_rows > FLOAT32_INTEGERS else flat.dtype
    width, start = levels.width.to(exact), levels.start.to(exact)
    upper, lower = ((y.to(exact) * width).add_(start).mul_(stride) for y in (y0, y1))
    if base is not None:
        upper, lower = upper.add_(base), lower.add_(base)
    x0, x1 = x0.to(exact).mul_(stride), x1.to(exact).mul_(stride)
    rows = flat.new_empty((flat.shape[0], 4, samples), dtype=dtype)
    for corner, (y, x) in enumerate(((upper, x0), (upper, x1), (lower, x0), (lower, x1))):
        rows[:, corner] = y + x
    return Corners(
        rows, left, right, top, bottom, left_inside, right_inside, top_inside, bottom_inside
    )


def _table_corners(locations: Tensor, levels: Levels, pixels: int) -> Corners:
    """Corners whose rows are those of the [images * S * H, D] table, S being `pixels`."""
    images, queries, heads = locations.shape[:3]
    n_rows = images * pixels * heads
    exact = torch.float64 if n_rows > FLOAT32_INTEGERS else locations.dtype
    first = torch.arange(images, dtype=exact)[:, None, None] * (pixels * heads)
    base = (first + torch.arange(heads, dtype=exact)).expand(images, queries, heads)
    # 32 bits sort in half the time
    dtype = torch.int32 if n_rows < 2**31 else torch.int64
    return _corners(
        locations, levels, stride=heads, base=base.reshape(-1, 1), n_rows=n_rows, dtype=dtype
    )


def _dense(
    grads: Tensor, value: Tensor, rows: Tensor, weights: Tensor, grad_value: Tensor
) -> Tensor:
    """Write grad_value [images, S, H, D]; return grad_output . value at every corner, [R, 4, K].

    Small maps: products of every query's gradient with every pixel cost less than picking those
    that are needed.
    """
    images, queries, heads, _ = grads.shape
    rows = rows.view(images, queries, heads, -1)
    weights = weights.view(images, queries, heads, -1)
    dots = torch.empty_like(weights)
    mixing = weights.new_empty(queries, heads, value.shape[1])
    for i in range(images):
        mixing.zero_().scatter_add_(2, rows[i], weights[i])
        grad = grads[i].transpose(0, 1)  # [H, Q, D]
        grad_value[i] = torch.bmm(mixing.permute(1, 2, 0), grad).transpose(0, 1)
        torch.bmm(grad, value[i].permute(1, 2, 0), out=mixing.transpose(0, 1))
        torch.gather(mixing, 2, rows[i], out=dots[i])
    return dots.view(images * queries * heads, 4, -1)


def _sorted(
    grads: Tensor, value: Tensor, rows: Tensor, weights: Tensor, grad_value: Tensor
) -> Tensor:
    """As `_dense`, for maps of any size: the bags turned round, one a row of the value table."""
    dim = value.shape[-1]
    grads = grads.reshape(-1, dim)
    table = value.reshape(-1, dim)
    rows = rows.flatten(1)
    per_bag = rows.shape[1]
    keys, order = rows.flatten().sort()
    offsets = torch.searchsorted(keys, torch.arange(table.shape[0], dtype=keys.dtype))
    bags = F.embedding_bag(
        order // per_bag,
        grads,
        offsets,
        per_sample_weights=weights.flatten().index_select(0, order),
        mode="sum",
    )
    grad_value.copy_(bags.view_as(grad_value))
    dots = torch.empty_like(weights).view(-1, per_bag)
    # a few megabytes of gathered rows at a time
    step = max(1, 2**20 // (per_bag * dim))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        gathered = table.index_select(0, part.flatten()).view(len(part), per_bag, dim)
        dots[start : start + step] = torch.bmm(gathered, grads[start : start + step, :, None])[
            ..., 0
        ]
    return dots.view_as(weights)


def _sample_gradients(corners: Corners, dots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d/dx and d/dy in pixels and the sampled value's product with the gradient, [R, K] each.

    dots: [R, 4, K] products of grad_output with the corner rows.
    """
    c = corners
    top_left, top_right, bottom_left, bottom_right = dots.unbind(1)
    upper = (top_left * c.left).addcmul_(top_right, c.right)
    lower = (bottom_left * c.left).addcmul_(bottom_right, c.right)
    grad_weight = (upper * c.top).addcmul_(lower, c.bottom)
    grad_y = lower.mul_(c.bottom_inside).addcmul_(upper, c.top_inside, value=-1)
    before = (top_left * c.top).addcmul_(bottom_left, c.bottom)
    after = (top_right * c.top).addcmul_(bottom_right, c.bottom)
    grad_x = after.mul_(c.right_inside).addcmul_(before, c.left_inside, value=-1)
    return grad_x, grad_y, grad_weight
