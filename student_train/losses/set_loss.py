"""The one loss: class, L1 and GIoU terms of predictions that are matched with weighted boxes.

Ground truth is the special case of weights 1 and background 1; a teacher's boxes weigh their scores
and its unmatched queries 0.5. With N the number of boxes:

    class  1/N  sum_q w_q sum_c focal(p_qc, y_qc)      w_q: weight of q's box, else the background
    box    1/N  sum_j w_j |b_j - b^_j|_1
    giou   1/N  sum_j w_j (1 - GIoU_j)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from student_train.losses.config import LossConfig
from student_train.losses.geometry import iou_and_giou, to_corners
from student_train.losses.matcher import Match
from student_train.models.output import Prediction


@dataclass(frozen=True)
class WeightedBoxes:
    """The boxes of all images of a batch in turn, N of them."""

    labels: Tensor  # LongTensor [N]
    boxes: Tensor  # [N, 4] (cx, cy, w, h)
    weights: Tensor  # [N], of every term of the matched query
    values: Tensor  # [N], class target of the matched query: 1, or a soft label


def set_loss(
    prediction: Prediction,
    targets: WeightedBoxes,
    match: Match,
    normaliser: Tensor,
    config: LossConfig,
    background: float = 1.0,
    covered: Tensor | None = None,
    released_giou: bool = False,
) -> dict[str, Tensor]:
    """Unweighted `class`, `box` and `giou` losses of every layer of a stack.

    prediction: [L, B, Q, ...]. match: pairs for the L layers. normaliser: N, a 0-d tensor.
    background: weight of the class row of an unmatched query. covered: bool [B], images that take
    part (all, if None). released_giou: the form 1 - w GIoU. Returns three tensors [L].
    """
    logits, boxes = prediction.logits, prediction.boxes
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    boxes = boxes.to(logits.dtype)
    layers = torch.arange(len(logits), device=logits.device)[:, None]  # [L, 1]
    at = (layers, match.image, match.query)  # broadcast to [L, M]

    weights = targets.weights.to(logits.dtype)[match.target]  # [L, M]
    row_weight = logits.new_full(logits.shape[:3], background)
    if covered is not None:
        row_weight = row_weight * covered[:, None]
    row_weight[at] = weights

    labels, values = targets.labels[match.target], targets.values.to(logits.dtype)[match.target]
    if config.classification == "focal":
        wanted = torch.zeros_like(logits)
        wanted[(*at, labels)] = values
        rows = focal_loss(logits, wanted, config.focal_alpha, config.focal_gamma).sum(-1)
        class_loss = (rows * row_weight).sum((1, 2)) / normaliser
    else:
        # as PyTorch's weighted mean: divided by the sum of the weights, not by N
        rows = softmax_loss(logits, labels, values, at)
        row_weight = row_weight * _class_weight(logits, at, config.no_object)
        class_loss = (rows * row_weight).sum((1, 2)) / row_weight.sum((1, 2)).clamp(min=1e-12)

    mine, wanted_boxes = boxes[at], targets.boxes.to(boxes.dtype)[match.target]  # [L, M, 4]
    distance = (mine - wanted_boxes).abs().sum(-1)
    _, giou = iou_and_giou(to_corners(mine), to_corners(wanted_boxes), config.giou_eps)
    apart = 1 - weights * giou if released_giou else weights * (1 - giou)
    return {
        "class": class_loss,
        "box": (weights * distance).sum(-1) / normaliser,
        "giou": apart.sum(-1) / normaliser,
    }


def focal_loss(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017) of every logit; targets may be soft."""
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    miss = p * (1 - wanted) + (1 - p) * wanted
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    return balance * cross_entropy * miss**gamma


def softmax_loss(logits: Tensor, labels: Tensor, values: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of every query, [L, B, Q]; the last class is no-object.

    A soft label gives its class `values` of the probability and no-object the rest.
    """
    wanted = torch.zeros_like(logits)
    wanted[..., -1] = 1
    wanted[(*at, torch.full_like(labels, logits.shape[-1] - 1))] = 1 - values
    wanted[(*at, labels)] = values
    return -(wanted * logits.log_softmax(-1)).sum(-1)


def _class_weight(logits: Tensor, at: tuple[Tensor, ...], no_object: float) -> Tensor:
    weight = logits.new_full(logits.shape[:3], no_object)
    weight[at] = 1.0
    return weight
