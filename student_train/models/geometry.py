"""Box arithmetic that broadcasts: every function takes the coordinates on the last axis."""

import torch
from torch import Tensor

# where both boxes have no area the plain quotient would be 0/0; no ordinary box comes near this
TINY = 1e-12


def to_corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) -> (x0, y0, x1, y1)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def to_centres(boxes: Tensor) -> Tensor:
    """(x0, y0, x1, y1) -> (cx, cy, w, h)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def iou_and_giou(a: Tensor, b: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., CVPR 2019) of corner boxes, broadcast.

    `eps` is added to both denominators: 1e-6 in DINO, DN-DETR and DAB-DETR, 0 in the others.
    """
    ax0, ay0, ax1, ay1 = a.unbind(-1)
    bx0, by0, bx1, by1 = b.unbind(-1)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    intersection = width * height
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
    iou = intersection / (union + eps).clamp(min=TINY)
    hull_width = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)).clamp(min=0)
    hull_height = (torch.maximum(ay1, by1) - torch.minimum(ay0, by0)).clamp(min=0)
    hull = hull_width * hull_height
    return iou, iou - (hull - union) / (hull + eps).clamp(min=TINY)
