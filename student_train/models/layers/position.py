"""Sine encodings of places: of every cell of a feature map, and of boxes that queries refer to."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def geometry_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which places are computed: float64 for a float64 model, else float32, whatever
    autocast does.
    """
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def cells(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Row and column of every cell of a map, row by row: [height x width] each."""
    y = torch.arange(height, dtype=dtype, device=device)[:, None].expand(height, width)
    x = torch.arange(width, dtype=dtype, device=device)[None].expand(height, width)
    return y.reshape(-1), x.reshape(-1)


def _waves(x: Tensor, dim: int, temperature: float) -> Tensor:
    """sin and cos of `x` at `dim` / 2 wavelengths, in turn: [..., dim]."""
    index = torch.arange(dim, dtype=x.dtype, device=x.device)
    divisor = temperature ** (2 * (index // 2) / dim)
    angle = x.unsqueeze(-1) / divisor
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


def sine_map(
    mask: Tensor, dim: int, temperature: float, dtype: torch.dtype, offset: float = 0.0
) -> Tensor:
    """Position encoding of a feature map, [B, H, W, dim]: the first half of the channels tells y,
    the second x.

    `mask` is [B, H, W], True on padding: places are counted over the valid cells and scaled to 0..2
    pi, so padding does not move them. The count starts at 1 - `offset`: 0.5 means the cells'
    centres, as in Deformable DETR; 0 their far borders, as in DETR and DINO. DINO section 4 has
    temperature 20; the others use 10000.
    """
    valid = ~mask
    y = valid.cumsum(1, dtype=dtype)
    x = valid.cumsum(2, dtype=dtype)
    # a column or row that is padding throughout ends at 0: the small number keeps the division
    # finite there
    y = (y - offset) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
    x = (x - offset) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
    return torch.cat((_waves(y, dim // 2, temperature), _waves(x, dim // 2, temperature)), dim=-1)


def sine_grid(
    height: int,
    width: int,
    dim: int,
    dtype: torch.dtype,
    device: torch.device,
    temperature: float = 10000.0,
) -> Tensor:
    """Position encoding of a grid's cells, row by row, [height x width, dim]: a quarter of the
    channels each for sin and cos of the row's number, sin and cos of the column's.

    Numbers count from 0, whatever the size (RT-DETR, as transformers has it).
    """
    index = torch.arange(dim // 4, dtype=dtype, device=device)
    frequency = temperature ** (-index / (dim // 4))
    rows, columns = (
        torch.arange(count, dtype=dtype, device=device)[:, None] * frequency
        for count in (height, width)
    )
    rows = torch.cat((rows.sin(), rows.cos()), -1)[:, None].expand(-1, width, -1)
    columns = torch.cat((columns.sin(), columns.cos()), -1)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), -1).flatten(0, 1)


def sine_coordinates(values: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Encoding of N numbers in 0..1, [..., N] to [..., N x dim / 2], in their own order."""
    return _waves(values * (2 * math.pi), dim // 2, temperature).flatten(-2)


def sine_boxes(boxes: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Encoding of boxes [..., 4] (cx, cy, w, h in 0..1), [..., 2 dim]: y, x, w, h in this order,
    `dim` / 2 each; of points [..., 2] (cx, cy), [..., dim].

    DAB-DETR section 4.2; its own temperature of 10000 stays even where the image's differs.
    """
    y_first = torch.cat((boxes[..., :2].flip(-1), boxes[..., 2:]), -1)
    return sine_coordinates(y_first, dim, temperature)


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """The logit of `x` clamped to 0..1; numerator and denominator are at least `eps` (DINO's
    value).
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def move_reference(change: Tensor, reference: Tensor, eps: float) -> Tensor:
    """Boxes [B, Q, 4] that lie `change` away from their references, in logit space.

    `reference` is [B, Q, 4] in 0..1, or [B, Q, 2] if only the centre has one. `eps` is
    `inverse_sigmoid`'s: 1e-3 in DINO, 1e-5 in Deformable DETR.
    """
    start = inverse_sigmoid(reference, eps)
    if reference.shape[-1] == 2:
        start = F.pad(start, (0, 2))
    return (change + start).sigmoid()


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """The nearest entries of a padding mask [B, H, W] for a map of `size` (h, w): [B, h, w]."""
    if torch.compiler.is_exporting():
        # other programs round "nearest" differently where a cell falls on an edge
        rows, columns = (
            _nearest(old, new, mask.device) for old, new in zip(mask.shape[1:], size, strict=True)
        )
        return mask[:, rows][:, :, columns]
    return F.interpolate(mask[:, None].float(), size=list(size))[:, 0].bool()


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """The indices that PyTorch's nearest interpolation takes, as float32 arithmetic of its own."""
    old_size, new_size = (torch.full((), n, dtype=torch.float32, device=device) for n in (old, new))
    places = torch.arange(new, dtype=torch.float32, device=device) * (old_size / new_size)
    return places.floor().long().clamp(max=old - 1)


def valid_ratio(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Share of a map that is not padding, [B, 2] (x, y), from `mask` [B, H, W] (True on padding).

    Read off the first row and column: images stand in the upper left corner of the batch's canvas.
    """
    _, height, width = mask.shape
    x = (~mask[:, 0, :]).sum(1).to(dtype) / width
    y = (~mask[:, :, 0]).sum(1).to(dtype) / height
    return torch.stack((x, y), dim=-1)
