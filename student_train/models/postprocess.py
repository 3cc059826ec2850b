"""From the last decoder layer to detections, in whichever form the student says classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from student_train.models.geometry import to_corners
from student_train.models.output import Form, Prediction, Selected, StudentOutput


class Detections(NamedTuple):
    """What was found in one image, best first."""

    scores: Tensor
    """[k] in 0..1"""
    labels: Tensor
    """LongTensor [k], logit indices"""
    boxes_xyxy: Tensor
    """[k, 4], pixels of the original image; not clipped"""


def top_k(output: StudentOutput | Selected, sizes: Tensor, k: int) -> list[Detections]:
    """The best `k` detections of every image, or fewer where there are fewer.

    `sizes` is [B, 2], (height, width) of the original images in pixels. Sigmoid scores compete as
    pairs of query and class, so one query may give several classes (the post-processing of
    Deformable DETR and its descendants). Softmax gives every query its most likely class, no-object
    left out (DETR, YOLOS).
    """
    scores, labels, boxes = best(output, k)
    height, width = sizes.to(boxes).unbind(-1)
    scale = torch.stack((width, height, width, height), -1)[:, None]
    found = (scores, labels, boxes * scale)
    return [Detections(*parts) for parts in zip(*found, strict=True)]


def best(output: StudentOutput | Selected, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `top_k` selects, as tensors of the whole batch.

    Scores [B, k], logit indices [B, k] and corner boxes [B, k, 4] in 0..1 of each image.
    """
    if isinstance(output, Selected):
        return output.scores[:, :k], output.labels[:, :k], output.boxes[:, :k]
    prediction = output.last
    scores, labels, query = _candidates(prediction, output.classification)
    values, index = scores.topk(min(k, scores.shape[1]), dim=1)
    place = query.gather(1, index)[..., None].expand(-1, -1, 4)
    boxes = to_corners(prediction.boxes.gather(1, place))
    return values, labels.gather(1, index), boxes


def _candidates(prediction: Prediction, form: Form) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and queries of all that may be detected, each [B, N]."""
    n_images, n_queries, n_classes = prediction.logits.shape
    queries = torch.arange(n_queries, device=prediction.logits.device)
    if form == "softmax":
        scores, labels = prediction.logits.softmax(-1)[..., :-1].max(-1)
        return scores, labels, queries.expand(n_images, -1)
    classes = torch.arange(n_classes, device=queries.device)
    return (
        prediction.logits.sigmoid().flatten(1),
        classes.repeat(n_queries).expand(n_images, -1),
        queries.repeat_interleave(n_classes).expand(n_images, -1),
    )
