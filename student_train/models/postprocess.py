"""From the last decoder layer to detections: the k most likely pairs of query and class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from student_train.models.output import StudentOutput


class Detections(NamedTuple):
    """What was found in one image, best first."""

    scores: Tensor
    """[k] in 0..1"""
    labels: Tensor
    """LongTensor [k], logit indices"""
    boxes_xyxy: Tensor
    """[k, 4], pixels of the original image; not clipped"""


def to_corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) to (x1, y1, x2, y2), [..., 4]."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)


def top_k(output: StudentOutput, sizes: Tensor, k: int) -> list[Detections]:
    """The best `k` detections of every image by sigmoid score; one query may give several classes.

    `sizes` is [B, 2], (height, width) of the original images in pixels. Gives fewer than `k` where
    there are fewer pairs of query and class. The focal-loss post-processing of Deformable DETR and
    its descendants.
    """
    prediction = output.last
    scores = prediction.logits.sigmoid().flatten(1)
    values, index = scores.topk(min(k, scores.shape[1]), dim=1)
    n_classes = prediction.logits.shape[-1]
    query = (index // n_classes)[..., None].expand(-1, -1, 4)
    height, width = sizes.to(prediction.boxes).unbind(-1)
    scale = torch.stack((width, height, width, height), -1)[:, None]
    boxes = to_corners(prediction.boxes.gather(1, query)) * scale
    return [Detections(*parts) for parts in zip(values, index % n_classes, boxes, strict=True)]
