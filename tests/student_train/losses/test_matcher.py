"""The matching: its cost by the formula, its optimality, and sets that stand side by side."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou

from student_train.losses.config import LossConfig, MatchCost
from student_train.losses.costs import pair_costs
from student_train.losses.matcher import match, problem_of, start_matching
from student_train.models.geometry import iou_and_giou, to_corners
from student_train.models.output import StudentOutput, stack
from student_train.models.targets import Targets

MakeTargets = Callable[..., list[Targets]]
MakeOutput = Callable[..., StudentOutput]


def cost_by_formula(
    logits: torch.Tensor, boxes: torch.Tensor, targets: Targets, cost: MatchCost, form: str
) -> torch.Tensor:
    """[Q, N] of one image, as DETR and Deformable DETR write it."""
    if form == "softmax":
        classes = -logits.softmax(-1)
    else:
        p = logits.sigmoid()
        positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
        classes = positive - 0.75 * p**2 * -(1 - p + 1e-8).log()
    corners = [box_convert(each, "cxcywh", "xyxy") for each in (boxes, targets.boxes)]
    return (
        cost.class_cost * classes[:, targets.labels]
        + cost.l1_cost * (boxes[:, None] - targets.boxes[None]).abs().sum(-1)
        - cost.giou_cost * generalized_box_iou(*corners)
    )


@pytest.mark.parametrize("form", ["focal", "softmax"])
@pytest.mark.parametrize("count", [2, 9])  # fewer boxes than classes, and more
def test_cost_is_the_formula(
    make_output: MakeOutput, make_targets: MakeTargets, form: str, count: int
) -> None:
    layers = stack(make_output().layers)
    first, second = make_targets(count, 1), make_targets(1, 2, seed=5)
    weights = MatchCost(class_cost=1.5, l1_cost=3, giou_cost=0.5)
    config = LossConfig(match=weights, classification=form, giou_eps=0)  # type: ignore[arg-type]
    sets = [list(first), list(second)]
    problem = problem_of("layer", layers, sets, [0, 0])
    costs = pair_costs(layers, problem.labels, problem.boxes, config)
    assert costs.shape == (3, 2, count + 1, 12)
    for layer, image in itertools.product(range(3), range(2)):
        logits, boxes = layers.logits[layer, image], layers.boxes[layer, image]
        expected = torch.cat(
            [
                cost_by_formula(logits, boxes, each[image], weights, form)
                for each in (first, second)
            ],
            dim=1,
        )
        torch.testing.assert_close(costs[layer, image, : expected.shape[1]], expected.T.detach())


@pytest.mark.parametrize("form", ["focal", "softmax"])
@pytest.mark.parametrize("count", [3, 9])
def test_matching_is_optimal(
    make_output: MakeOutput, make_targets: MakeTargets, form: str, count: int
) -> None:
    layer = make_output().last
    targets = make_targets(count, 2)
    weights = MatchCost(class_cost=1.5, l1_cost=3, giou_cost=0.5)
    found = match(layer, targets, weights, form)  # type: ignore[arg-type]
    for image in range(2):
        cost = cost_by_formula(
            layer.logits[image], layer.boxes[image], targets[image], weights, form
        )
        queries, boxes = found[image]
        assert sorted(boxes.tolist()) == list(range(len(targets[image])))
        total = cost[queries, boxes].sum().item()
        if len(targets[image]) == 2:
            best = min(
                (cost[a, 0] + cost[b, 1]).item() for a, b in itertools.permutations(range(12), 2)
            )
            assert total == pytest.approx(best, abs=1e-5)
        else:
            # no swap of two boxes, and no move to a free query, is cheaper
            for i, j in itertools.combinations(range(count), 2):
                swapped = cost[queries[i], boxes[j]] + cost[queries[j], boxes[i]]
                kept = cost[queries[i], boxes[i]] + cost[queries[j], boxes[j]]
                assert swapped >= kept - 1e-5
            free = sorted(set(range(12)) - set(queries.tolist()))
            assert (cost[free][:, boxes] >= cost[queries, boxes] - 1e-5).all()


def test_sets_side_by_side_are_matched_as_if_alone(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    layers = stack(make_output().layers)
    first = make_targets(3, 0, seed=1)
    second: list[Targets | None] = [None, make_targets(5, seed=2)[0]]
    third = make_targets(4, 6, seed=3)
    sets = [list(first), second, list(third), [None, None]]
    problem = problem_of("layer", layers, sets, [0, 1, 2, 0])
    (together,) = start_matching([problem], LossConfig()).result()
    for index, start in enumerate([0, 1, 2, 0]):
        problem = problem_of("layer", layers, [sets[index]], [start])
        ((alone,),) = start_matching([problem], LossConfig()).result()
        for a, b in zip(together[index], alone, strict=True):
            assert np.array_equal(a, b)
        assert together[index].query.shape[0] == 3 - start
    assert together[3].query.shape == (3, 0)


def test_match_of_no_boxes(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    for queries, boxes in match(make_output().last, make_targets(0, 0)):
        assert len(queries) == len(boxes) == 0


def test_giou_equals_torchvision() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.rand(20, 4, generator=g) * 0.5 + 0.1 for _ in range(2))
    left, right = to_corners(a), to_corners(b)
    _, ours = iou_and_giou(left[:, None], right[None])
    torch.testing.assert_close(ours, generalized_box_iou(left, right))


def test_giou_of_points_is_finite() -> None:
    points = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]], requires_grad=True)
    iou, giou = iou_and_giou(points[:, None], points[None])
    assert torch.isfinite(iou).all()
    assert torch.isfinite(giou).all()
    giou.sum().backward()
    assert torch.isfinite(points.grad).all()
