"""Images that a teacher saw, did not see, or found nothing in."""

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


def cut(prediction: Prediction | None) -> Prediction:
    assert prediction is not None
    return Prediction(prediction.logits[:1], prediction.boxes[:1])


@pytest.mark.parametrize("form", ["focal", "softmax"])
def test_uncovered_image_adds_nothing(
    make_output: MakeOutput, make_targets: MakeTargets, form: str
) -> None:
    output, (first, _) = make_output(proposals="class"), make_targets(4, 6, scored=True)
    config = replace(teachers_only(), classification=form)  # type: ignore[arg-type]
    losses = run(config, output, [], {"t": [first, None]})
    assert losses.total.item() > 0
    for gradient in gradients(losses, output):
        assert gradient[0].abs().max() > 0
        assert gradient[1].abs().max() == 0
    # the same as if the batch were that image alone
    alone = StudentOutput([cut(layer) for layer in output.layers], proposals=cut(output.proposals))
    assert losses.total.item() == pytest.approx(
        run(config, alone, [], {"t": [first]}).total.item(), rel=1e-6
    )


def test_teacher_that_saw_no_image_of_the_batch(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, truth = make_output(proposals="class"), make_targets(4, 6)
    plain = run(LossConfig(), output, truth)
    with_teacher = run(LossConfig(), output, truth, {"t": [None, None]})
    assert with_teacher.folded()["teacher:t"] == 0
    assert with_teacher.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    same(gradients(with_teacher, output), gradients(plain, output))


@pytest.mark.parametrize(
    ("empty", "had_boxes", "pushes"),
    [
        ("had_boxes", True, True),
        ("had_boxes", False, False),
        ("keep", True, True),
        ("keep", False, True),
        ("none", True, False),
        ("none", False, False),
    ],
)
def test_covered_image_without_boxes(
    make_output: MakeOutput,
    make_targets: MakeTargets,
    empty: str,
    had_boxes: bool,
    pushes: bool,
) -> None:
    output, (first, second) = make_output(), make_targets(4, 0, scored=True)
    second = replace(second, had_boxes=had_boxes)
    losses = run(teachers_only(empty=empty), output, [], {"t": [first, second]})
    logits, boxes = gradients(losses, output)[:2]
    assert boxes[1].abs().max() == 0
    assert (logits[1].abs().max() > 0) == pushes
    if pushes:
        # the unmatched term alone: background times the focal loss of "nothing here", over N = 4
        leaf = output.layers[0].logits.detach()[1].requires_grad_()
        p = leaf.sigmoid()
        (0.5 / 4 * (0.75 * p**2 * -(1 - p).log()).sum()).backward()
        torch.testing.assert_close(logits[1], leaf.grad)


def test_more_boxes_than_queries(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(), make_targets(30, 2, scored=True)
    criterion = Criterion()
    supervisions = criterion.supervise(boxes, {"t": list(boxes)})
    losses = criterion(output, supervisions)
    assert math.isfinite(losses.total.item())
    queries, targets = criterion.matches(output, supervisions)["teacher:t/decoder layer"][0][0]
    assert sorted(queries.tolist()) == list(range(12))
    assert len(set(targets.tolist())) == 12


def test_without_teachers_nothing_changes(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    truth = make_targets(4, 6)
    output = make_output(proposals="class", denoising=truth)
    plain = run(LossConfig(), output, truth)
    odd = TeacherLossConfig(coefficient=7, background=0.1, layers="last", label="soft")
    without = run(LossConfig(teacher=odd), output, truth, {})
    stopped = TeacherLossConfig(schedule="stop:2")
    after = run(
        LossConfig(teacher=stopped), output, truth, {"t": list(make_targets(3, 3))}, epoch=2
    )
    for losses in (without, after):
        assert losses.names == plain.names
        assert torch.equal(losses.values, plain.values)
        for a, b in zip(gradients(losses, output), gradients(plain, output), strict=True):
            assert torch.equal(a, b)


def unlabelled() -> Targets:
    return Targets.unknown(torch.zeros(0))


@pytest.mark.parametrize("form", ["focal", "softmax"])
def test_ground_truth_is_silent_on_an_image_that_nobody_labelled(
    make_output: MakeOutput, make_targets: MakeTargets, form: str
) -> None:
    (first,) = make_targets(4)
    config = LossConfig(classification=form)  # type: ignore[arg-type]
    output = make_output(proposals="class", one_to_many=True, denoising=[first, unlabelled()])
    losses = run(config, output, [first, unlabelled()])
    assert output.denoising is not None
    noisy = [tensor for layer in output.denoising.layers for tensor in (layer.logits, layer.boxes)]
    for gradient in (
        *gradients(losses, output),
        *torch.autograd.grad(losses.total, noisy, retain_graph=True),
    ):
        assert gradient[0].abs().max() > 0
        assert gradient[1].abs().max() == 0
    # an image that is known to be empty does push its queries down
    known = run(config, output, [first, *make_targets(0)])
    assert gradients(known, output)[0][1].abs().max() > 0


def test_teachers_teach_where_nobody_labelled(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    truth, (seen, other) = make_targets(4, 3), make_targets(5, 2, seed=2, scored=True)
    output = make_output(proposals="class")
    mixed = run(LossConfig(), output, [truth[0], unlabelled()], {"t": [seen, other]})
    alone = run(teachers_only(), output, truth, {"t": [seen, other]})
    for both, taught in zip(gradients(mixed, output), gradients(alone, output), strict=True):
        torch.testing.assert_close(both[1], taught[1])
        assert taught[1].abs().max() > 0
        assert (both[0] - taught[0]).abs().max() > 0


def test_a_batch_that_nobody_labelled(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output = make_output(proposals="class")
    losses = run(LossConfig(), output, [unlabelled(), unlabelled()])
    assert losses.total.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(losses, output))
    seen = make_targets(5, 2, seed=2, scored=True)
    taught = run(LossConfig(), output, [unlabelled(), unlabelled()], {"t": list(seen)})
    reference = run(teachers_only(), output, make_targets(0, 0), {"t": list(seen)})
    same(gradients(taught, output), gradients(reference, output))


def test_denoising_of_teachers_boxes_where_nobody_labelled(make_targets: MakeTargets) -> None:
    seen = make_targets(5, 2, seed=2, scored=True)
    config = LossConfig(teacher=TeacherLossConfig(groups=("matching", "denoising")))
    criterion = Criterion(config)
    truth = [*make_targets(4), unlabelled(), unlabelled()]
    teachers = {"t": [seen[0], seen[1], None]}
    noised = criterion.denoising_targets(truth, teachers)
    assert [(len(each), each.known) for each in noised] == [(9, True), (2, True), (0, False)]
    found = {each.name: each for each in criterion.supervise(truth, teachers)}
    assert [each is None for each in found["denoising"].targets] == [False, False, True]
    assert [each is None for each in found["truth"].targets] == [False, True, True]
