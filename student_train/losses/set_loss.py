"""The one loss: class, L1 and GIoU terms of predictions that are matched with weighted boxes.

Ground truth is the special case of weights 1 and background 1; a teacher's boxes weigh their scores
and its unmatched queries 0.5. With N the number of boxes (for a teacher, the annotated ones where
those are more):

    class  1/N  sum_q w_q sum_c term(p_qc, y_qc)       w_q: weight of q's box, else the background
    box    1/N  sum_j w_j |b_j - b^_j|_1
    giou   1/N  sum_j w_j (1 - GIoU_j)

All S sets of boxes that supervise a stack of L layers are one tensor: the number of operations does
not depend on how many teachers there are. `class_terms.py` has the terms of the classes, `loop.py`
says the same one set and layer at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.losses.class_terms import ClassTerm
from student_train.models.geometry import iou_and_giou, to_corners


@dataclass(frozen=True)
class Pairs:
    """Who answers for which box: S sets on L layers, M pairs each, shorter ones padded."""

    place: Tensor
    """LongTensor [S, L, M], index of the query among all L x B x Q of the stack"""
    row: Tensor
    """LongTensor [S, L, M], row of the box table; its last row marks padding"""
    hidden: Tensor
    """LongTensor [S, L, M], index among S x L x B x Q of the query, which is not background there;
    padding has the index after the last"""


@dataclass(frozen=True)
class Sets:
    """How each of the S sets of a stack counts."""

    background: Tensor
    """[S, L, B], weight of the class row of an unmatched query; 0 in images that are not covered
    and layers that are not supervised"""
    power: Tensor
    """[S], weight of a matched query's terms = score ** power"""
    soft: Tensor
    """[S], 1 where the class target of a matched query is the score, not 1"""
    released: Tensor
    """[S], 1 where the GIoU term has the form 1 - weight x GIoU, not weight x (1 - GIoU)"""
    normaliser: Tensor
    """[S], N"""
    share: Tensor
    """[S], the weights in this batch over those that divide the step's loss; for means by weight
    (softmax)"""


@dataclass(frozen=True)
class Matched:
    """Queries beside the boxes that they answer for, [S, L, M] each."""

    real: Tensor
    """False for padding"""
    weights: Tensor
    """of their terms"""
    scores: Tensor
    """of their boxes"""
    distance: Tensor
    """L1, of (cx, cy, w, h)"""
    iou: Tensor
    giou: Tensor


def compare(
    boxes: Tensor, wanted: Tensor, scores: Tensor, pairs: Pairs, sets: Sets, giou_eps: float = 0.0
) -> Matched:
    """Predicted boxes [L, B, Q, 4] and those of the box table they are paired with: wanted [N + 1,
    4], scores [N + 1], of which the last row is padding.
    """
    real = pairs.row < len(scores) - 1
    score = scores[pairs.row]
    # padding would have the weight 0 ** 0
    weights = torch.where(real, score ** sets.power[:, None, None], 0)
    mine, goal = boxes.flatten(0, 2)[pairs.place], wanted[pairs.row]  # [S, L, M, 4]
    iou, giou = iou_and_giou(to_corners(mine), to_corners(goal), giou_eps)
    return Matched(real, weights, score, (mine - goal).abs().sum(-1), iou, giou)


def class_losses(
    classes: ClassTerm, matched: Matched, labels: Tensor, pairs: Pairs, sets: Sets
) -> Tensor:
    """`class` losses of all sets on all layers: [S, L], no coefficients. labels: [N + 1]."""
    weights = matched.weights
    values = torch.where(sets.soft[:, None, None] > 0, matched.scores, 1)
    elsewhere = _unmatched(pairs, sets, classes)
    nothing = (elsewhere * classes.absent).sum((2, 3))  # [S, L]
    present = classes.present(pairs.place, labels[pairs.row], values, matched.iou.detach())
    divisor = sets.normaliser[:, None]
    if classes.weighted_mean:
        own, share = elsewhere.sum((2, 3)) + weights.sum(-1), sets.share[:, None]
        # a part without any weight adds 0, not 0/0
        divisor = torch.where(own * share > 0, own / share, 1)
    return (nothing + (weights * present).sum(-1)) / divisor


def box_losses(matched: Matched, sets: Sets, normaliser: Tensor) -> Tensor:
    """`box` and `giou` losses of all sets on all layers: [2, S, L], no coefficients.

    normaliser: [S].
    """
    weights = matched.weights
    most = torch.where(sets.released[:, None, None] > 0, matched.real.to(weights.dtype), weights)
    sums = torch.stack(
        [(weights * matched.distance).sum(-1), (most - weights * matched.giou).sum(-1)]
    )
    return sums / normaliser[:, None]


def _unmatched(pairs: Pairs, sets: Sets, classes: ClassTerm) -> Tensor:
    """[S, L, B, Q], class weight of every query without a box, 0 of the others."""
    layers, images, queries = classes.absent.shape
    shape = (len(sets.power), layers, images, queries)
    size = shape[0] * layers * images * queries
    # one place more, where the padding of the pairs can write
    weights = classes.absent.new_empty(size + 1)
    background = sets.background * classes.absent_weight
    weights[:size].view(shape).copy_(background[..., None].expand(shape))
    weights.index_fill_(0, pairs.hidden.flatten(), 0)
    return weights[:size].view(shape)
