"""The oracle: the same losses, one source, layer and image at a time, as the papers write them.

`Criterion` computes all of them at once. This says what they are, in the order in which one would
explain them, and takes a copy to the host and some thirty operations for each. The tests hold the
two against each other, and `student-train bench` measures what doing it at once saves.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from student_train.losses.config import LossConfig
from student_train.losses.criterion import Losses
from student_train.losses.plan import TERMS, Stack, Task, plan
from student_train.losses.supervision import Supervision
from student_train.models.geometry import iou_and_giou, to_corners
from student_train.models.output import Denoising, StudentOutput
from student_train.models.targets import Targets

# query and box indices of one image
Pairs = tuple[Tensor, Tensor]


def loop_losses(
    output: StudentOutput, supervisions: Sequence[Supervision], config: LossConfig
) -> Losses:
    """The losses of a batch that is a whole step of one process, as `Criterion` returns them.

    Raises UsageError if nothing supervises the student.
    """
    parts: dict[str, Tensor] = {}
    stacks = plan(output, supervisions)
    with torch.autocast(output.last.boxes.device.type, enabled=False):
        for supervision in supervisions:
            for stack in stacks:
                for task in stack.tasks:
                    if task.supervision is supervision:
                        parts |= _task_losses(stack, task, output.denoising, config)
    values = torch.stack(list(parts.values()))
    return Losses(values.sum(), tuple(parts), values.detach(), values)


def _task_losses(
    stack: Stack, task: Task, denoising: Denoising | None, config: LossConfig
) -> dict[str, Tensor]:
    supervision = task.supervision
    least = stack.tasks[stack.least[stack.tasks.index(task)]]
    counted = stack.groups if config.groups == "mean" else 1
    n_boxes = counted * max(int(each.counts.sum()) for each in (task, least))
    normaliser = max(1, n_boxes) * task.copies
    weights = (config.class_loss, config.l1_loss, config.giou_loss)
    found: dict[str, dict[int, Tensor]] = {term: {} for term in TERMS}
    for layer in range(task.first, stack.shape[0]):
        sums, weight_sum = _layer_sums(stack, task, layer, denoising, config)
        divisors = [torch.full_like(weight_sum, normaliser)] * 3
        if config.classification == "softmax":
            _, others = _layer_sums(stack, least, layer, denoising, config)
            divisors[0] = torch.maximum(weight_sum, others).clamp(min=1e-12)
        for term, total, divisor, factor in zip(TERMS, sums, divisors, weights, strict=True):
            found[term][layer] = total / divisor * (factor * supervision.coefficient)
    return {
        f"{supervision.name}/{term}/{stack.label(layer)}": value
        for term, by_layer in found.items()
        for layer, value in by_layer.items()
    }


def _layer_sums(
    stack: Stack, task: Task, layer: int, denoising: Denoising | None, config: LossConfig
) -> tuple[list[Tensor], Tensor]:
    """Class, box and GIoU loss of one layer over all images, and the sum of its class weights."""
    logits = stack.prediction.logits[layer].float()
    boxes = stack.prediction.boxes[layer].float()
    sums = [logits.new_zeros(()) for _ in TERMS]
    weight_sum = logits.new_zeros(())
    for image, each in enumerate(task.supervision.targets):
        if each is None:
            continue
        targets = _as_seen(each.repeat(task.repeat), stack)
        if stack.known:
            assert denoising is not None
            mine = denoising.image_index == image
            pairs = (denoising.slot_index[mine], denoising.target_index[mine])
        else:
            pairs = match_groups(logits[image], boxes[image], targets, stack.groups, config)
        terms, weight = _image_losses(logits[image], boxes[image], targets, pairs, task, config)
        sums = [total + term for total, term in zip(sums, terms, strict=True)]
        weight_sum = weight_sum + weight
    return sums, weight_sum


def _as_seen(targets: Targets, stack: Stack) -> Targets:
    if not stack.classless:
        return targets
    return replace(targets, labels=torch.zeros_like(targets.labels))


def loop_matching(
    output: StudentOutput, supervisions: Sequence[Supervision], config: LossConfig
) -> int:
    """Every assignment of a step by itself: source, layer, image, group of queries; how many."""
    solved = 0
    for each in plan(output, supervisions):
        for task in () if each.known else each.tasks:
            targets = [
                None if t is None else _as_seen(t.repeat(task.repeat), each)
                for t in task.supervision.targets
            ]
            for layer in range(task.first, each.shape[0]):
                for image, boxes in enumerate(targets):
                    if boxes is not None and len(boxes):
                        logits = each.prediction.logits[layer, image]
                        mine = each.prediction.boxes[layer, image]
                        match_groups(logits, mine, boxes, each.groups, config)
                        solved += each.groups
    return solved


def match_groups(
    logits: Tensor, boxes: Tensor, targets: Targets, groups: int, config: LossConfig
) -> Pairs:
    """The pairs of one image, of every group of its queries."""
    size = len(logits) // groups
    found = []
    for first in range(0, groups * size, size):
        mine = slice(first, first + size)
        queries, matched = match_one(logits[mine], boxes[mine], targets, config)
        found.append((queries + first, matched))
    queries, matched = zip(*found, strict=True)
    return torch.cat(queries), torch.cat(matched)


@torch.no_grad()
def match_one(logits: Tensor, boxes: Tensor, targets: Targets, config: LossConfig) -> Pairs:
    """The cheapest assignment of one image [Q, C], [Q, 4], with a copy to the host of its own."""
    weights = config.match
    if config.classification == "softmax":
        classes = -logits.softmax(-1)
    else:
        p, (alpha, gamma) = logits.sigmoid(), config.match_alpha_gamma
        eps = weights.log_eps
        yes = (p + eps).log() if eps else torch.nn.functional.logsigmoid(logits)
        no = (1 - p + eps).log() if eps else torch.nn.functional.logsigmoid(-logits)
        classes = (1 - alpha) * p**gamma * no - alpha * (1 - p) ** gamma * yes
    corners, wanted = to_corners(boxes)[:, None], to_corners(targets.boxes)[None]
    cost = (
        weights.class_cost * classes[:, targets.labels]
        + weights.l1_cost * torch.cdist(boxes, targets.boxes.to(boxes.dtype), p=1)
        - weights.giou_cost * iou_and_giou(corners, wanted, config.giou_eps)[1]
    )
    queries, matched = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(queries, device=boxes.device), torch.as_tensor(
        matched, device=boxes.device
    )


def _image_losses(
    logits: Tensor,
    boxes: Tensor,
    targets: Targets,
    pairs: Pairs,
    task: Task,
    config: LossConfig,
) -> tuple[list[Tensor], Tensor]:
    """Class, box and GIoU loss of one image and layer, and the sum of its class weights."""
    supervision, (queries, matched) = task.supervision, pairs
    labels, scores = targets.labels[matched], targets.scores[matched]
    own = scores ** (supervision.power if task.weighted else 0.0)
    values = scores if supervision.soft else torch.ones_like(scores)
    background = supervision.background if task.weighted else 1.0
    soft = config.classification == "softmax"
    weights = logits.new_full((len(logits),), background * (config.no_object if soft else 1.0))
    weights[queries] = own
    wanted = targets.boxes[matched]
    iou, giou = iou_and_giou(to_corners(boxes[queries]), to_corners(wanted), config.giou_eps)
    rows = _class_rows(logits, queries, labels, values, iou.detach(), config)
    apart = 1 - own * giou if supervision.released_giou else own * (1 - giou)
    distance = (own * (boxes[queries] - wanted).abs().sum(-1)).sum()
    return [(weights * rows).sum(), distance, apart.sum()], weights.sum()


def _class_rows(
    logits: Tensor,
    queries: Tensor,
    labels: Tensor,
    values: Tensor,
    quality: Tensor,
    config: LossConfig,
) -> Tensor:
    """[Q], what every query pays for its classes [Q, C], if `queries` are to say `labels`."""
    goal = torch.zeros_like(logits)
    if config.classification == "softmax":
        goal[:, -1] = 1
        goal[queries, -1] = 1 - values
        goal[queries, labels] = values
        return -(goal * logits.log_softmax(-1)).sum(-1)
    p = logits.sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    if config.classification in ("vfl", "mal"):
        varifocal = config.classification == "vfl"
        alpha, gamma = config.quality(0.75, 2.0) if varifocal else config.quality(1.0, 1.5)
        goal[queries, labels] = values * (quality if varifocal else quality**gamma)
        weight = alpha * p.detach() ** gamma
        weight[queries, labels] = values * quality if varifocal else 1.0
        return (weight * entropy(logits, goal, reduction="none")).sum(-1)
    if config.classification == "ia_bce":
        alpha, gamma = config.quality(0.25, 2.0)
        sure = p[queries, labels].detach()
        wanted = values * (sure**alpha * quality ** (1 - alpha)).clamp(min=0.01)
        positive, negative = torch.zeros_like(p), p**gamma
        positive[queries, labels] = wanted
        negative = negative.index_put((queries, labels), 1 - wanted)
        return -(positive * p.log() + negative * (1 - p).log()).sum(-1)
    goal[queries, labels] = values
    alpha = config.focal_alpha
    miss = p * (1 - goal) + (1 - p) * goal
    balance = alpha * goal + (1 - alpha) * (1 - goal)
    rows = balance * entropy(logits, goal, reduction="none") * miss**config.focal_gamma
    return rows.sum(-1)
