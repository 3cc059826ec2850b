"""Boxes as distributions: how far each edge lies from where a first box has it, as a probability
over unevenly spaced distances (D-FINE section 3.1, Peng et al., ICLR 2025; `dfine_utils.py`).

Distances are in units of the first box's side / `scale`, counted outwards from the middle between
its centre and its edge ... that is from half of `scale`: 0 is the edge itself.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bin_distances(n_bins: int, up: Tensor, scale: Tensor) -> Tensor:
    """The distances W(0) .. W(n_bins) that bins stand for, [n_bins + 1], rising (D-FINE, eq. 5).

    They lie dense around 0 and reach a = |up x scale| in a geometric row, 2 a at both ends.
    """
    bound = (up * scale).abs().reshape(())
    step = (bound + 1) ** (2 / (n_bins - 2))
    powers = torch.arange(1, n_bins // 2, device=bound.device, dtype=bound.dtype)
    positive = torch.cat((step**powers - 1, (2 * bound).reshape(1)))
    return torch.cat((-positive.flip(0), positive.new_zeros(1), positive))


def move_edges(reference: Tensor, moved: Tensor, scale: Tensor) -> Tensor:
    """Boxes (cx, cy, w, h) whose edges lie `moved` [..., 4] (left, top, right, bottom; outwards)
    from those of `reference` [..., 4]. They may reach beyond 0..1.
    """
    centre, unit = reference[..., :2], reference[..., 2:] / scale
    low = centre - (scale / 2 + moved[..., :2]) * unit
    high = centre + (scale / 2 + moved[..., 2:]) * unit
    return torch.cat(((low + high) / 2, high - low), -1)


def edge_distances(reference: Tensor, corners: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `move_edges`: how far the edges of boxes [..., 4] (x0, y0, x1, y1) lie from
    those of `reference` (cx, cy, w, h), [..., 4].
    """
    centre = reference[..., :2]
    # a reference without extent cannot be told from its own edges
    unit = (reference[..., 2:] / scale).clamp(min=1e-16)
    low = (centre - corners[..., :2]) / unit
    high = (corners[..., 2:] - centre) / unit
    return torch.cat((low, high), -1) - scale / 2


def between_bins(moved: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Where distances [...] fall among the bins: the bin below (LongTensor [...], at most N - 1)
    and the share of the one above, 0..1. Beyond the first and last bin all falls on it.
    """
    last = len(distances) - 1
    above = torch.searchsorted(distances, moved.detach().contiguous(), right=True)
    below = (above - 1).clamp(0, last - 1)
    low, high = distances[below], distances[below + 1]
    return below, ((moved - low) / (high - low)).clamp(0, 1)
