"""Bipartite matching of predictions and boxes: one cost computation and one copy to the host.

The cost of pairing a query with a box is `class + L1 - GIoU`, weighted by `MatchCost` (DETR, §3.1;
the focal class term is Deformable DETR's). Scores of teacher boxes are not part of it.

A step asks for many small matchings: decoder layers x images x (ground truth + teachers). All boxes
of an image are laid side by side, whoever drew them, so that one padded tensor holds every cost.
It crosses to the host once, SciPy solves each matching there, and the pairs return in one piece.
Meanwhile the device may work: `start_matching` queues the copy, `PendingMatches.result` waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from box_store.errors import TeachDetrError
from student_train.losses.config import Form, LossConfig, MatchCost
from student_train.losses.geometry import TINY
from student_train.models.output import Prediction, stack
from student_train.models.targets import Targets

BoxSet = list[Targets | None]


class NonFinitePrediction(TeachDetrError):
    """The student returned NaN or infinity: nothing can be matched, training has diverged."""


class Match(NamedTuple):
    """Who is responsible for which box. Every layer has the same number of pairs, M."""

    image: Tensor  # LongTensor [M], the same for all layers, ascending
    query: Tensor  # LongTensor [L, M]
    target: Tensor  # LongTensor [L, M], index into the boxes of all images in turn


@dataclass(frozen=True)
class Problem:
    """One stack of predictions to be matched with several sets of boxes, each on its own."""

    where: str
    """what the stack is, for error messages: `decoder layer`"""
    prediction: Prediction
    """[L, B, Q, ...]"""
    box_sets: list[BoxSet]
    """per set, the boxes of each of the B images; None = no boxes known, nothing to match"""
    first_layers: list[int]
    """per set, the layer it starts at: earlier ones are not matched"""


class PendingMatches:
    """Costs on their way to the host."""

    def __init__(self, problems: list[Problem], config: LossConfig):
        self._problems = problems
        device = problems[0].prediction.boxes.device
        with torch.no_grad():
            costs = [pair_costs(problem, config) for problem in problems]
            self._shapes = [cost.shape for cost in costs]
            flags = [_finite(problem.prediction) for problem in problems]
            flat = torch.cat([part.flatten().float() for part in (*flags, *costs)])
        self._device = device
        self._event = None
        if device.type == "cuda":
            self._flat = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            self._flat.copy_(flat, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._flat = flat

    def result(self) -> list[Match]:
        """Wait, and solve: one matching per box set, in order. Raises NonFinitePrediction."""
        if self._event is not None:
            self._event.synchronize()
        flat = self._flat.numpy()
        start = 0
        for problem, (layers, images, _, _) in zip(self._problems, self._shapes, strict=True):
            stop = start + layers * images
            _check_finite(problem.where, flat[start:stop].reshape(layers, images))
            start = stop
        tables: list[np.ndarray] = []
        for problem, shape in zip(self._problems, self._shapes, strict=True):
            stop = start + shape.numel()
            cost = flat[start:stop].reshape(shape)
            start = stop
            tables += [_assign(problem, index, cost) for index in range(len(problem.box_sets))]
        return self._upload(tables)

    def _upload(self, tables: list[np.ndarray]) -> list[Match]:
        """All pairs in one transfer, cut into matches on the device."""
        if not tables:
            return []
        packed = torch.from_numpy(np.concatenate([table.reshape(3, -1) for table in tables], 1))
        if self._event is not None:
            packed = packed.pin_memory()
        packed = packed.to(self._device, non_blocking=True)
        parts = packed.split([table[0].size for table in tables], 1)
        matches = []
        for part, table in zip(parts, tables, strict=True):
            image, query, target = part.view(table.shape).unbind()
            matches.append(Match(image[0], query, target))
        return matches


def start_matching(problems: list[Problem], config: LossConfig) -> PendingMatches:
    """Compute all costs and send them to the host without waiting for them."""
    with torch.autocast(problems[0].prediction.boxes.device.type, enabled=False):
        return PendingMatches(problems, config)


def match(
    prediction: Prediction,
    targets: list[Targets],
    cost: MatchCost | None = None,
    form: Form = "focal",
) -> list[tuple[Tensor, Tensor]]:
    """Match one layer with one set of boxes: per image (query indices, target indices)."""
    config = LossConfig(match=cost or MatchCost(), classification=form)
    problem = Problem("layer", stack([prediction]), [list(targets)], [0])
    return split_by_image(start_matching([problem], config).result()[0], targets)[0]


def split_by_image(
    match: Match, targets: Sequence[Targets | None]
) -> list[list[tuple[Tensor, Tensor]]]:
    """Per layer and image: (query indices, indices of that image's targets)."""
    sizes = [0 if each is None else len(each) for each in targets]
    before = np.cumsum([0, *sizes])
    layers = []
    for query, target in zip(match.query, match.target, strict=True):
        per_image = [match.image == image for image in range(len(targets))]
        layers.append(
            [(query[mine], target[mine] - int(before[i])) for i, mine in enumerate(per_image)]
        )
    return layers


def pair_costs(problem: Problem, config: LossConfig) -> Tensor:
    """[L, B, T, Q], T = most boxes that an image has in all sets together; padding is arbitrary."""
    logits, boxes = problem.prediction.logits.detach(), problem.prediction.boxes.detach()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    boxes = boxes.to(logits.dtype)
    layers, images, queries, classes = logits.shape
    beside = [_beside(problem.box_sets, image) for image in range(images)]
    most = max((sum(map(len, row)) for row in beside), default=0)
    if not most:
        return logits.new_zeros(layers, images, 0, queries)
    labels = torch.zeros(images, most, dtype=torch.long, device=boxes.device)
    wanted = boxes.new_zeros(images, most, 4)
    for image, row in enumerate(beside):
        if row:
            found = torch.cat([each.labels for each in row])
            labels[image, : len(found)] = found
            wanted[image, : len(found)] = torch.cat([each.boxes for each in row]).to(boxes.dtype)

    weights = config.match
    index = labels[None, :, :, None].expand(layers, -1, -1, queries)
    if config.classification == "softmax":
        cost = -logits.softmax(-1).mT.gather(2, index)
    elif most < classes:
        cost = _focal_cost(logits.mT.gather(2, index), config)
    else:
        cost = _focal_cost(logits, config).mT.gather(2, index)
    cost *= weights.class_cost
    return _add_box_cost(cost, boxes, wanted, weights, config.giou_eps)


def _focal_cost(logits: Tensor, config: LossConfig) -> Tensor:
    """What saying that a class is there costs, against saying that it is not."""
    alpha, gamma = config.focal_alpha, config.focal_gamma
    p = logits.sigmoid()
    # the official codes' 1e-8 inside the logarithms decides between very sure queries
    absent = (1 - alpha) * p**gamma * -(1 - p + 1e-8).log()
    present = alpha * (1 - p) ** gamma * -(p + 1e-8).log()
    return present - absent


def _add_box_cost(
    cost: Tensor, boxes: Tensor, wanted: Tensor, weights: MatchCost, eps: float
) -> Tensor:
    """Add L1 and minus GIoU to a cost [L, B, T, Q], in place; boxes [L, B, Q, 4], wanted [B, T, 4].

    The GIoU is `geometry.iou_and_giou`'s. These are the largest tensors of the losses and have no
    gradient, so they are reused instead of made anew.
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


def _beside(box_sets: list[BoxSet], image: int) -> list[Targets]:
    found = (box_set[image] for box_set in box_sets)
    return [boxes for boxes in found if boxes is not None]


def _finite(prediction: Prediction) -> Tensor:
    """[L, B], 1 where all logits and boxes are finite."""
    logits, boxes = prediction.logits.detach(), prediction.boxes.detach()
    return (logits.isfinite().all(-1) & boxes.isfinite().all(-1)).all(-1)


def _check_finite(where: str, finite: np.ndarray) -> None:
    if not finite.all():
        layer, image = np.argwhere(finite == 0)[0]
        where = f"{where} {layer}" if len(finite) > 1 else where
        raise NonFinitePrediction(
            f"the student predicted NaN or infinity ({where}, image {image} of the batch); "
            "training has diverged: lower the learning rate, or resume from an earlier checkpoint"
        )


def _assign(problem: Problem, index: int, cost: np.ndarray) -> np.ndarray:
    """Solve one box set on every layer it takes part in: (3, layers, M) of image, query, target."""
    box_set, first = problem.box_sets[index], problem.first_layers[index]
    layers = cost.shape[0]
    columns: list[np.ndarray] = []
    offset = 0
    for image, boxes in enumerate(box_set):
        if boxes is None or not len(boxes):
            continue
        start = sum(map(len, _beside(problem.box_sets[:index], image)))
        block = cost[first:, image, start : start + len(boxes)]
        pairs = solve(list(block))
        targets, queries = (np.stack(side) for side in zip(*pairs, strict=True))
        columns.append(np.stack([np.full_like(queries, image), queries, targets + offset]))
        offset += len(boxes)
    return np.concatenate(columns, 2) if columns else np.zeros((3, layers - first, 0), np.int64)


def solve(costs: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Minimal assignments of [boxes, queries] costs: pairs (box, query), min of both counts long.

    SciPy releases the GIL, so a thread pool may take this function's place without other changes.
    """
    return [linear_sum_assignment(cost) for cost in costs]
