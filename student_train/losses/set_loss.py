"""The one loss: class, L1 and GIoU terms of predictions that are matched with weighted boxes.

Ground truth is the special case of weights 1 and background 1; a teacher's boxes weigh their scores
and its unmatched queries 0.5. With N the number of boxes:

    class  1/N  sum_q w_q sum_c focal(p_qc, y_qc)      w_q: weight of q's box, else the background
    box    1/N  sum_j w_j |b_j - b^_j|_1
    giou   1/N  sum_j w_j (1 - GIoU_j)
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from student_train.losses.config import LossConfig
from student_train.losses.geometry import iou_and_giou, to_corners
from student_train.losses.matcher import Match

# layer, image and query of matched pairs, broadcast to [L, M]
Pairs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class WeightedBoxes:
    """The boxes of all images of a batch in turn, N of them."""

    labels: Tensor
    """LongTensor [N]"""
    boxes: Tensor
    """[N, 4], (cx, cy, w, h)"""
    weights: Tensor
    """[N], of every term of the matched query"""
    values: Tensor
    """[N], class target of the matched query: 1, or a soft label"""


class ClassTerm(Protocol):
    """Class losses of a stack's queries, summed over the classes.

    Most queries have no box, whoever supervises; so what they cost is computed once for a stack and
    every supervision only adds what its own pairs change.
    """

    absent: Tensor
    """[L, B, Q], loss of a query that should say that there is nothing"""
    absent_weight: float
    """class weight of such a query; a matched one has 1"""
    weighted_mean: bool
    """whether the loss is divided by the sum of the weights (as PyTorch's) rather than by N"""

    def present(self, at: Pairs, labels: Tensor, values: Tensor) -> Tensor:
        """[L, M], loss of queries that should say `labels` with probability `values`."""
        ...


class FocalTerm:
    """Sigmoid focal loss (Lin et al., ICCV 2017)."""

    absent_weight = 1.0
    weighted_mean = False

    def __init__(self, logits: Tensor, alpha: float, gamma: float):
        """logits: [L, B, Q, C]."""
        self._logits, self._alpha, self._gamma = logits, alpha, gamma
        self.absent = self._without(logits).sum(-1)

    def present(self, at: Pairs, labels: Tensor, values: Tensor) -> Tensor:
        own = self._logits[(*at, labels)]
        return self.absent[at] - self._without(own) + self._with(own, values)

    def _without(self, logits: Tensor) -> Tensor:
        """Of a class that is not there."""
        return (self._alpha - 1) * F.logsigmoid(-logits) * logits.sigmoid() ** self._gamma

    def _with(self, logits: Tensor, values: Tensor) -> Tensor:
        """Of a class that is there, or that a soft label gives a probability."""
        p = logits.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, values, reduction="none")
        miss = p * (1 - values) + (1 - p) * values
        balance = self._alpha * values + (1 - self._alpha) * (1 - values)
        return balance * cross_entropy * miss**self._gamma


class SoftmaxTerm:
    """Cross-entropy; the last class is no-object and takes what a soft label leaves over."""

    weighted_mean = True

    def __init__(self, logits: Tensor, no_object: float):
        """logits: [L, B, Q, C + 1]."""
        self._log_p = logits.log_softmax(-1)
        self.absent = -self._log_p[..., -1]
        self.absent_weight = no_object

    def present(self, at: Pairs, labels: Tensor, values: Tensor) -> Tensor:
        return (1 - values) * self.absent[at] - values * self._log_p[(*at, labels)]


def class_term(logits: Tensor, config: LossConfig) -> ClassTerm:
    """The class losses of a stack [L, B, Q, C], in float32 or wider."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if config.classification == "softmax":
        return SoftmaxTerm(logits, config.no_object)
    return FocalTerm(logits, config.focal_alpha, config.focal_gamma)


def set_loss(
    classes: ClassTerm,
    boxes: Tensor,
    targets: WeightedBoxes,
    match: Match,
    normaliser: Tensor,
    *,
    first: int = 0,
    background: float = 1.0,
    covered: Tensor | None = None,
    giou_eps: float = 0.0,
    released_giou: bool = False,
) -> dict[str, Tensor]:
    """`class`, `box` and `giou` losses of the layers of a stack, without coefficients.

    classes, boxes: of the whole stack, boxes [L, B, Q, 4]. match: pairs for the layers from `first`
    on. normaliser: N, a 0-d tensor. background: weight of the class row of an unmatched query.
    covered: bool [B], images that take part (all, if None). released_giou: the form 1 - w GIoU.
    Returns three tensors [L - first].
    """
    boxes = boxes.to(classes.absent.dtype)
    layers = torch.arange(first, len(boxes), device=boxes.device)[:, None]
    at = (layers, match.image, match.query)  # broadcast to [L - first, M]
    weights = targets.weights.to(boxes.dtype)[match.target]  # [L - first, M]
    values = targets.values.to(boxes.dtype)[match.target]

    elsewhere = torch.full_like(classes.absent, background * classes.absent_weight)
    if covered is not None:
        elsewhere *= covered[:, None]
    elsewhere[at] = 0.0
    elsewhere = elsewhere[first:]
    nothing = (elsewhere * classes.absent[first:]).sum((1, 2))
    something = (weights * classes.present(at, targets.labels[match.target], values)).sum(-1)
    divisor = normaliser
    if classes.weighted_mean:
        divisor = (elsewhere.sum((1, 2)) + weights.sum(-1)).clamp(min=1e-12)

    mine, wanted = boxes[at], targets.boxes.to(boxes.dtype)[match.target]  # [L - first, M, 4]
    distance = (mine - wanted).abs().sum(-1)
    _, giou = iou_and_giou(to_corners(mine), to_corners(wanted), giou_eps)
    apart = 1 - weights * giou if released_giou else weights * (1 - giou)
    return {
        "class": (nothing + something) / divisor,
        "box": (weights * distance).sum(-1) / normaliser,
        "giou": apart.sum(-1) / normaliser,
    }
