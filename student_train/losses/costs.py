"""What pairing each query with each box costs: `class + L1 - GIoU`, weighted by `MatchCost` (DETR,
§3.1; the focal class term is Deformable DETR's). Scores of teacher boxes are not part of it.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from detr_kernels.matching import pair_costs_kernel
from student_train.losses.config import LossConfig, MatchCost
from student_train.losses.solver import share
from student_train.models.geometry import TINY
from student_train.models.output import Prediction

# costs that are computed at once on a CPU
_PIECE = 2**18


def pair_costs(
    prediction: Prediction,
    labels: Tensor,
    wanted: Tensor,
    config: LossConfig,
    out: Tensor | None = None,
) -> Tensor:
    """[L, B, T, Q], no gradient: in `out`, or in float32 or wider.

    prediction: [L, B, Q, ...]. labels: LongTensor [B, T]; wanted: [B, T, 4], (cx, cy, w, h): the
    boxes of each image, all sets side by side.
    """
    logits, boxes = prediction.logits.detach(), prediction.boxes.detach()
    layers, images, queries, _ = logits.shape
    if out is None:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        out = logits.new_empty(layers, images, labels.shape[1], queries, dtype=dtype)
    fill = pair_costs_kernel() if logits.device.type == "cpu" and queries else None
    if fill is not None:
        _fill(fill, Prediction(logits, boxes), labels, wanted, config, out)
        return out
    for layer, image, query in _pieces(out):
        part = Prediction(logits[layer, image, query], boxes[layer, image, query])
        out[layer, image, :, query] = _costs(part, labels[image], wanted[image], config)
    return out


def _fill(
    fill: Callable[..., None],
    prediction: Prediction,
    labels: Tensor,
    wanted: Tensor,
    config: LossConfig,
    out: Tensor,
) -> None:
    """`pair_costs` by what numba compiled, layers and images shared among torch's threads."""
    weights = config.match
    numbers = (
        weights.class_cost, weights.l1_cost, weights.giou_cost, config.giou_eps, TINY, 0.5
    )  # fmt: skip
    numbers = np.array(numbers, out.numpy().dtype)
    boxes = prediction.boxes.mT.to(out.dtype).contiguous()  # [L, B, 4, Q]
    wanted = wanted.to(out.dtype).contiguous()
    found = [each.unique(return_inverse=True) for each in labels]

    def work(task: tuple[int, int]) -> None:
        layer, image = task
        classes, rows = found[image]
        by_class = _class_costs(prediction.logits[layer, image], classes, config, out.dtype)
        fill(
            out[layer, image].numpy(),
            by_class.numpy(),
            rows.numpy(),
            boxes[layer, image].numpy(),
            wanted[image].numpy(),
            numbers,
        )

    share(list(product(range(out.shape[0]), range(out.shape[1]))), work, torch.get_num_threads())


def _class_costs(logits: Tensor, classes: Tensor, config: LossConfig, dtype: torch.dtype) -> Tensor:
    """[len(classes), Q], what saying each of some classes costs the queries of an image [Q, C]."""
    logits = logits.to(dtype)
    if config.classification == "softmax":
        return -logits.softmax(-1).mT[classes]
    return _focal_cost(logits.index_select(1, classes).mT.contiguous(), config)


def _pieces(costs: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Layers, images and queries of costs [L, B, T, Q] that are computed at once: all, or on a CPU
    what its caches hold, which is several times as fast.
    """
    if costs.device.type != "cpu":
        yield slice(None), slice(None), slice(None)
        return
    layers, images, most, queries = costs.shape
    step = max(1, _PIECE // max(1, most))
    for layer in range(layers):
        for image in range(images):
            for first in range(0, queries, step):
                yield slice(layer, layer + 1), slice(image, image + 1), slice(first, first + step)


def _costs(prediction: Prediction, labels: Tensor, wanted: Tensor, config: LossConfig) -> Tensor:
    """`pair_costs` of some layers and images."""
    logits, boxes = prediction.logits, prediction.boxes
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    boxes, wanted = boxes.to(logits.dtype), wanted.to(logits.dtype)
    layers, images, queries, classes = logits.shape
    most = labels.shape[1]
    if not most:
        return logits.new_zeros(layers, images, 0, queries)
    if config.classification == "softmax":
        logits = logits.softmax(-1)
    # whole rows of queries are copied: several times faster than gathering single elements
    by_class = logits.mT.reshape(-1, queries)  # [L * B * C, Q]
    first = torch.arange(layers * images, device=labels.device).view(layers, images, 1) * classes
    rows = (first + labels).flatten()
    if config.classification == "softmax":
        cost = -by_class[rows]
    elif most < classes:
        cost = _focal_cost(by_class[rows], config)
    else:
        cost = _focal_cost(by_class, config)[rows]
    cost = cost.view(layers, images, most, queries).mul_(config.match.class_cost)
    return _add_box_cost(cost, boxes, wanted, config.match, config.giou_eps)


def _focal_cost(logits: Tensor, config: LossConfig) -> Tensor:
    """What saying that a class is there costs, against saying that it is not."""
    alpha, gamma = config.match_alpha_gamma
    p = logits.sigmoid()
    if eps := config.match.log_eps:
        no, yes = (1 - p + eps).log_(), (p + eps).log_()
    else:
        # `logsigmoid` of both signs; PyTorch's own goes through log1p, number by number
        no = logits.abs().neg_().exp_().add_(1).log_().add_(logits.clamp(min=0)).neg_()
        yes = logits + no
    cost = (p**gamma).mul_(no).mul_(1 - alpha)
    return cost.addcmul_((1 - p).pow_(gamma), yes, value=-alpha)


def _add_box_cost(
    cost: Tensor, boxes: Tensor, wanted: Tensor, weights: MatchCost, eps: float
) -> Tensor:
    """Add L1 and minus GIoU to a cost [L, B, T, Q], in place; boxes [L, B, Q, 4], wanted [B, T, 4].

    The GIoU is `geometry.iou_and_giou`'s. These are the largest tensors of the losses and have no
    gradient, so they are reused instead of made anew; `torch.cdist` would be many times slower.
    """
    left = boxes.movedim(-1, 0).contiguous().unsqueeze(-2)  # 4 x [L, B, 1, Q]
    right = wanted.movedim(-1, 0).contiguous()[:, None, :, :, None]  # 4 x [1, B, T, 1]
    work = torch.empty_like(cost)
    for mine, other in zip(left, right, strict=True):
        cost.add_(torch.sub(mine, other, out=work).abs_(), alpha=weights.l1_cost)

    left_low, left_high = left[:2] - left[2:] / 2, left[:2] + left[2:] / 2
    right_low, right_high = right[:2] - right[2:] / 2, right[:2] + right[2:] / 2
    shared, hull = torch.ones_like(cost), torch.ones_like(cost)
    side = torch.empty_like(cost)
    for axis in range(2):
        torch.minimum(left_high[axis], right_high[axis], out=side)
        side -= torch.maximum(left_low[axis], right_low[axis], out=work)
        shared *= side.clamp_(min=0)
        torch.maximum(left_high[axis], right_high[axis], out=side)
        side -= torch.minimum(left_low[axis], right_low[axis], out=work)
        hull *= side.clamp_(min=0)
    union = torch.add(left[2] * left[3], right[2] * right[3], out=work).sub_(shared)
    cost.sub_(
        shared.div_(torch.add(union, eps, out=side).clamp_(min=TINY)), alpha=weights.giou_cost
    )
    outside = torch.sub(hull, union, out=shared).div_(hull.add_(eps).clamp_(min=TINY))
    return cost.add_(outside, alpha=weights.giou_cost)
