"""What the loss of a teacher must satisfy whatever the numbers are."""

import math
from dataclasses import replace

import pytest
import torch

from student_train.losses import (
    Criterion,
    LossConfig,
    TeacherLossConfig,
)
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets

from .conftest import MakeOutput, MakeTargets, gradients, run, same, teachers_only

# a teacher whose boxes are taken as if they were ground truth
AS_TRUTH = TeacherLossConfig(matched_weight="one", background=1.0)


@pytest.mark.parametrize("form", ["focal", "softmax", "vfl"])
@pytest.mark.parametrize("labels", ["class", "binary"])
def test_sure_teacher_with_full_background_is_ground_truth(
    make_output: MakeOutput, make_targets: MakeTargets, form: str, labels: str
) -> None:
    output, boxes = make_output(proposals=labels), make_targets(4, 6)
    config = LossConfig(classification=form, teacher=AS_TRUTH)  # type: ignore[arg-type]
    truth = run(config, output, boxes)
    teacher = run(replace(config, truth=0, denoising=0), output, [], {"t": list(boxes)})
    assert truth.total.item() == teacher.total.item()
    for name, value in truth.parts.items():
        assert teacher.parts[name.replace("truth", "teacher:t")].item() == value.item()
    same(gradients(truth, output), gradients(teacher, output))


def test_weight_one_ignores_scores(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, scored = make_output(), make_targets(4, 6, scored=True)
    sure = [replace(each, scores=torch.ones(len(each))) for each in scored]
    config = replace(teachers_only(), teacher=AS_TRUTH)
    ours = run(config, output, [], {"t": list(scored)})
    assert ours.total.item() == run(LossConfig(denoising=0), output, sure).total.item()


def test_identical_teachers_add_up(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(proposals="class"), make_targets(4, 6, scored=True)
    one = run(teachers_only(), output, [], {"a": list(boxes)})
    three = run(teachers_only(), output, [], {name: list(boxes) for name in "abc"})
    assert three.total.item() == pytest.approx(3 * one.total.item(), rel=1e-6)
    same(gradients(three, output), gradients(one, output), 3)


def test_score_zero_silences_a_matched_query(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(), make_targets(3, 3)
    boxes[0].scores[:] = torch.tensor([0.0, 1.0, 1.0])
    criterion = Criterion(teachers_only(proposals="off"))
    supervisions = criterion.supervise([], {"t": list(boxes)})
    logits, box = gradients(criterion(output, supervisions), output)[:2]
    queries, targets = criterion.matches(output, supervisions)["teacher:t/decoder layer"][0][0]
    silent = queries[targets == 0]
    assert logits[0, silent].abs().max() == 0
    assert box[0, silent].abs().max() == 0
    assert logits[0, queries[targets == 1]].abs().max() > 0


def test_score_to_a_power(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(), make_targets(4, 6, scored=True)
    squared = [replace(each, scores=each.scores**2) for each in boxes]
    left = run(teachers_only(matched_weight="power:2"), output, [], {"t": list(boxes)})
    right = run(teachers_only(), output, [], {"t": list(squared)})
    assert left.total.item() == pytest.approx(right.total.item(), rel=1e-6)


def test_background_zero_leaves_unmatched_queries_alone(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(), make_targets(4, 6, scored=True)
    criterion = Criterion(teachers_only(background=0))
    supervisions = criterion.supervise([], {"t": list(boxes)})
    logits = gradients(criterion(output, supervisions), output)[0]
    queries, _ = criterion.matches(output, supervisions)["teacher:t/decoder layer"][0][0]
    unmatched = sorted(set(range(12)) - set(queries.tolist()))
    assert logits[0, unmatched].abs().max() == 0
    assert logits[0, queries].abs().amax(-1).min() > 0


@pytest.mark.parametrize("form", ["focal", "softmax"])
def test_soft_labels_are_reached_exactly(form: str) -> None:
    # a query that says the score itself has no reason to move, with hard labels it has
    score = 0.7
    targets = [
        Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([score]))
    ]
    logit = math.log(score / (1 - score))
    logits = torch.tensor([[[-30.0, logit, -30.0]]] if form == "focal" else [[[-30.0, logit, 0.0]]])
    logits.requires_grad_()
    output = StudentOutput([Prediction(logits, torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]))])
    for label, moves in (("soft", False), ("hard", True)):
        config = replace(teachers_only(label=label), classification=form, focal_gamma=0)  # type: ignore[arg-type]
        config = replace(config, focal_alpha=0.5)
        total = run(config, output, [], {"t": list(targets)}).total
        (gradient,) = torch.autograd.grad(total, logits)
        assert (gradient.abs().max().item() > 1e-5) == moves


def test_labels_corrected_by_overlapping_truth(make_output: MakeOutput) -> None:
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]])
    truth = [
        Targets.truth(torch.tensor([2, 3]), box),
        Targets.truth(torch.zeros(0).long(), box[:0]),
    ]
    # the first overlaps truth 0 with an IoU of 0.9, the second truth 1 with 0.5, the third nothing
    near = torch.tensor([[0.5, 0.5, 0.36, 0.4], [0.2, 0.2, 0.05, 0.1], [0.8, 0.8, 0.1, 0.1]])
    teacher = [Targets(torch.tensor([0, 0, 0]), near, torch.ones(3)) for _ in range(2)]
    config = LossConfig(teacher=TeacherLossConfig(correct_above_iou=0.8))
    supervisions = Criterion(config).supervise(truth, {"t": list(teacher)})
    first, second = next(s for s in supervisions if s.name == "teacher:t").targets
    assert first is not None
    assert first.labels.tolist() == [2, 0, 0]
    assert second is not None
    assert second.labels.tolist() == [0, 0, 0]
    plain = Criterion(LossConfig()).supervise(truth, {"t": list(teacher)})
    unchanged = next(s for s in plain if s.name == "teacher:t").targets[0]
    assert unchanged is not None
    assert unchanged.labels.tolist() == [0, 0, 0]


def test_a_teacher_of_a_softmax_student_by_hand() -> None:
    # three queries, two classes and no-object; one box of score 0.8 at the second query
    logits = torch.tensor([[[0.3, -0.2, 1.0], [1.2, 0.1, -0.4], [-1.0, 0.5, 0.2]]]).double()
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.6, 0.6, 0.2, 0.2], [0.9, 0.1, 0.1, 0.1]]])
    box = torch.tensor([[0.6, 0.6, 0.2, 0.3]])
    teacher = [Targets(torch.tensor([0]), box.double(), torch.tensor([0.8]).double())]
    output = StudentOutput([Prediction(logits.requires_grad_(), boxes.double())])
    config = replace(teachers_only(), classification="softmax", class_loss=1, giou_eps=0)
    losses = run(config, output, [], {"t": list(teacher)})

    log_p = logits.log_softmax(-1)[0]
    # score x 1 for the matched query, background x weight of no-object for the others
    weights = torch.tensor([0.5 * 0.1, 0.8, 0.5 * 0.1]).double()
    said = torch.stack([log_p[0, 2], log_p[1, 0], log_p[2, 2]])
    wanted = -(weights * said).sum() / weights.sum()
    parts = losses.parts
    assert parts["teacher:t/class/0"].item() == pytest.approx(wanted.item())
    # boxes as for any student: divided by the number of boxes
    assert parts["teacher:t/box/0"].item() == pytest.approx(5 * 0.8 * 0.1)
    assert parts["teacher:t/giou/0"].item() == pytest.approx(2 * 0.8 * (1 - 2 / 3))
    (gradient,) = torch.autograd.grad(losses.total, logits)
    p = log_p.exp()
    target = torch.eye(3).double()[[2, 0, 2]]
    wanted_gradient = weights[:, None] * (p - target) / weights.sum()
    torch.testing.assert_close(gradient[0], wanted_gradient)
