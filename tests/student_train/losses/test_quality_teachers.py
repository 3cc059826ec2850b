"""Teachers of students whose class loss asks for the IoU: what holds whatever the numbers are."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student_train.losses import Criterion, LossConfig, Losses, TeacherLossConfig
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets

MakeTargets = Callable[..., list[Targets]]
MakeOutput = Callable[..., StudentOutput]

QUALITY = ("vfl", "mal", "ia_bce")
each_loss = pytest.mark.parametrize("classification", QUALITY)


def config(classification: str, **teacher: object) -> LossConfig:
    how = TeacherLossConfig(counts="own", **teacher)  # type: ignore[arg-type]
    return LossConfig(classification=classification, giou_eps=0, teacher=how)  # type: ignore[arg-type]


def double(output: StudentOutput) -> StudentOutput:
    def of(each: Prediction) -> Prediction:
        return Prediction(
            each.logits.detach().double().requires_grad_(),
            each.boxes.detach().double().requires_grad_(),
        )

    assert output.proposals is not None
    return replace(output, layers=[of(x) for x in output.layers], proposals=of(output.proposals))


def precise(targets: list[Targets]) -> list[Targets]:
    return [replace(t, boxes=t.boxes.double(), scores=t.scores.double()) for t in targets]


def run(
    loss: LossConfig, output: StudentOutput, truth: list[Targets], **teachers: list[Targets]
) -> tuple[Losses, list[Tensor]]:
    criterion = Criterion(loss)
    losses = criterion(output, criterion.supervise(truth, dict(teachers)))
    assert output.proposals is not None
    leaves = [x for p in (*output.layers, output.proposals) for x in (p.logits, p.boxes)]
    return losses, list(torch.autograd.grad(losses.total, leaves))


def close(left: list[Tensor], right: list[Tensor], factor: float = 1.0) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b * factor, rtol=1e-12, atol=1e-14)


@pytest.fixture
def output(make_output: MakeOutput) -> StudentOutput:
    return double(make_output(proposals="class"))


@each_loss
def test_a_sure_teacher_with_full_background_is_ground_truth(
    classification: str, output: StudentOutput, make_targets: MakeTargets
) -> None:
    boxes = precise(make_targets(4, 6))
    loss = config(classification, background=1.0)
    truth, wanted = run(loss, output, boxes)
    teacher, found = run(replace(loss, truth=0, denoising=0), output, [], t=boxes)
    assert teacher.total.item() == truth.total.item()
    close(found, wanted)


@each_loss
def test_equal_teachers_add_up_in_any_order(
    classification: str, output: StudentOutput, make_targets: MakeTargets
) -> None:
    loss = replace(config(classification), truth=0, denoising=0)
    a, b = (precise(make_targets(4, 2, seed=seed, scored=True)) for seed in (1, 2))
    one, alone = run(loss, output, [], a=a)
    three, together = run(loss, output, [], a=a, b=a, c=a)
    torch.testing.assert_close(three.total, 3 * one.total, rtol=1e-12, atol=0)
    close(together, alone, 3)
    _, there = run(loss, output, [], a=a, b=b)
    _, back = run(loss, output, [], b=b, a=a)
    close(there, back)


@each_loss
def test_the_loss_is_linear_in_lambda(
    classification: str, output: StudentOutput, make_targets: MakeTargets
) -> None:
    truth, boxes = precise(make_targets(3, 3)), precise(make_targets(4, 2, seed=1, scored=True))
    totals = [
        run(config(classification, coefficient=c), output, truth, t=boxes)[0].total.item()
        for c in (0.5, 1.0, 2.0)
    ]
    assert totals[1] - totals[0] == pytest.approx((totals[2] - totals[1]) / 2, rel=1e-9)


@each_loss
def test_no_teachers_is_the_same_to_the_bit(
    classification: str, output: StudentOutput, make_targets: MakeTargets
) -> None:
    truth, boxes = precise(make_targets(3, 3)), precise(make_targets(4, 2, seed=1, scored=True))
    plain, wanted = run(config(classification), output, truth)
    silent, found = run(config(classification, coefficient=0.0), output, truth, t=boxes)
    assert silent.names == plain.names
    assert torch.equal(silent.values, plain.values)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@each_loss
def test_a_box_of_no_worth_takes_its_query_and_nothing_else(
    classification: str, output: StudentOutput, make_targets: MakeTargets
) -> None:
    loss = replace(config(classification), truth=0, denoising=0)
    scored = precise(make_targets(3, 2, seed=1, scored=True))
    worthless = [replace(t, scores=torch.zeros_like(t.scores)) for t in scored]
    losses, gradients = run(loss, output, [], t=worthless)
    for name, value in losses.parts.items():
        assert ("/class/" in name) == (value.item() != 0), name
    pairs = Criterion(loss).matches(output, Criterion(loss).supervise([], {"t": worthless}))
    query = pairs["teacher:t/decoder layer"][0][0][0]
    logits = gradients[0]
    assert len(query) == 3
    assert logits[0, query].count_nonzero() == 0
    others = torch.ones(logits.shape[1], dtype=torch.bool)
    others[query] = False
    assert logits[0, others].count_nonzero() > 0


@each_loss
def test_a_teacher_without_a_box_is_half_a_background(
    classification: str, output: StudentOutput, make_targets: MakeTargets
) -> None:
    nothing = precise(make_targets(0, 0))
    truth, wanted = run(config(classification), output, nothing)
    loss = replace(config(classification, empty="keep"), truth=0, denoising=0)
    teacher, found = run(loss, output, [], t=nothing)
    assert teacher.total.item() == pytest.approx(truth.total.item() / 2, rel=1e-12)
    close(found, wanted, 0.5)


@each_loss
def test_the_score_is_no_part_of_what_is_asked_for(classification: str) -> None:
    """s weighs the row; the class is to say the IoU with the teacher's box, not s x IoU."""
    logits = torch.tensor([[[0.3, -1.2], [0.1, 0.4]]], dtype=torch.float64).requires_grad_()
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]]], dtype=torch.float64)
    wanted = torch.tensor([[0.5, 0.5, 0.4, 0.3]], dtype=torch.float64)
    output = StudentOutput([Prediction(logits, boxes)])
    loss = replace(config(classification, background=0.0), truth=0, denoising=0)
    found = []
    for score in (1.0, 0.25):
        box = Targets(torch.tensor([1]), wanted, torch.tensor([score], dtype=torch.float64))
        criterion = Criterion(loss)
        losses = criterion(output, criterion.supervise([], {"t": [box]}))
        found.append(torch.autograd.grad(losses.total, logits)[0])
    torch.testing.assert_close(found[1], 0.25 * found[0], rtol=1e-12, atol=0)
    assert found[0][0, 0].count_nonzero() == 2
