"""Precisions, numbers that are none, and requests that make no sense."""

import math
from dataclasses import replace

import pytest
import torch

from box_store.errors import UsageError
from student_train.losses import (
    Criterion,
    LossConfig,
    NonFinitePrediction,
    Supervision,
)
from student_train.models.output import Prediction, StudentOutput

from .conftest import MakeOutput, MakeTargets, leaves, run


def test_float32_under_autocast_and_from_bfloat16(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, truth = make_output(proposals="class"), make_targets(4, 6)
    teachers = {"t": list(make_targets(5, 5, seed=3, scored=True))}
    plain = run(LossConfig(), output, truth, teachers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(LossConfig(), output, truth, teachers)
    assert torch.equal(inside.values, plain.values)
    half = StudentOutput([Prediction(p.logits.bfloat16(), p.boxes) for p in output.layers])
    wide = StudentOutput([Prediction(p.logits.float(), p.boxes) for p in half.layers])
    assert torch.equal(run(LossConfig(), half, truth).values, run(LossConfig(), wide, truth).values)


def test_float64(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, truth = make_output(), make_targets(4, 6)
    double = StudentOutput([Prediction(p.logits.double(), p.boxes.double()) for p in output.layers])
    total = run(LossConfig(), double, truth).total
    assert total.dtype == torch.float64
    assert total.item() == pytest.approx(run(LossConfig(), output, truth).total.item(), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("layer", "decoder layer 1, image 1"),
        ("proposals", "encoder proposals, image 1"),
        ("denoising", "denoising layer 1, image 1"),
    ],
)
def test_non_finite_predictions_are_named(
    make_output: MakeOutput, make_targets: MakeTargets, place: str, words: str, value: float
) -> None:
    truth = make_targets(4, 0)
    output = make_output(proposals="class", denoising=truth)
    assert output.denoising is not None
    bad = {
        "layer": output.layers[1],
        "proposals": output.proposals,
        "denoising": output.denoising.layers[1],
    }[place]
    assert bad is not None
    with torch.no_grad():
        (bad.boxes if place == "layer" else bad.logits)[1, 3, 2] = value
    with pytest.raises(NonFinitePrediction, match=words):
        run(LossConfig(), output, truth)


def test_finite_predictions_beyond_all_bounds_are_named(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output = make_output()
    with torch.no_grad():
        output.layers[2].boxes[1, 3] = 1e30
    with pytest.raises(NonFinitePrediction, match=r"decoder layer 2.*image 1 of the batch"):
        run(LossConfig(), output, make_targets(4, 6))


def test_nothing_to_learn_from_is_an_error(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    with pytest.raises(UsageError, match="nothing supervises"):
        run(LossConfig(truth=0, denoising=0), make_output(), make_targets(4, 6))


def test_supervisions_can_be_written_by_hand(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(), make_targets(4, 6)
    losses = Criterion()(output, [Supervision("mine", list(boxes), coefficient=2.0)])
    truth = run(LossConfig(), output, boxes)
    assert losses.total.item() == pytest.approx(2 * truth.total.item(), rel=1e-6)
    assert losses.names[0] == "mine/class/0"


def test_the_form_of_the_loss_is_the_students(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output = replace(make_output(), classification="softmax")
    criterion = Criterion(LossConfig())
    supervisions = criterion.supervise(make_targets(2, 1))
    for compute in (criterion, criterion.matches):
        with pytest.raises(UsageError, match="classification=softmax"):
            compute(output, supervisions)


def test_nothing_in_any_image(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, truth = make_output(proposals="class"), make_targets(0, 0)
    losses = run(LossConfig(), output, truth)
    folded = losses.folded()
    assert folded["class"] > 0
    assert folded["box"] == folded["giou"] == 0
    # every parameter still gets a gradient, as distributed training demands
    found = torch.autograd.grad(losses.total, leaves(output))
    assert all(torch.isfinite(g).all() for g in found)
