"""Whether teachers pull scores where the annotations do."""

import pytest
import torch

from student_train.losses import LossConfig, TeacherLossConfig, agreements, pulls
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets

from .conftest import MakeOutput, MakeTargets, run

AS_TRUTH = LossConfig(teacher=TeacherLossConfig(matched_weight="one", background=1.0))


def agreement(
    output: StudentOutput,
    truth: list[Targets],
    config: LossConfig = AS_TRUTH,
    **teachers: list[Targets | None],
) -> dict[str, float]:
    sums = pulls(output, run(config, output, truth, teachers))
    return agreements({name: float(value) for name, value in sums.items()})


def test_a_teacher_that_says_what_is_annotated_pulls_the_same_way(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    truth, other = make_targets(4, 3), make_targets(4, 3, seed=9)
    found = agreement(make_output(), truth, same=list(truth), other=list(other))
    assert found["same"] == pytest.approx(1, abs=1e-6)
    assert found["other"] < 0.9


def test_one_that_sees_another_class_there_hardly_agrees(make_output: MakeOutput) -> None:
    """One box each, on the same place, of another class; the background counts for neither."""
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    truth = [Targets(torch.tensor([label]), box, torch.ones(1)) for label in (0, 0)]
    teacher: list[Targets | None] = [
        Targets(torch.tensor([label]), box, torch.ones(1)) for label in (1, 1)
    ]
    config = LossConfig(teacher=TeacherLossConfig(matched_weight="one", background=0.0))
    found = agreement(make_output(), truth, config, t=teacher)
    assert found["t"] < 0.5


def test_the_training_gradient_stays_what_it_was(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    truth = make_targets(4, 3)
    teacher: list[Targets | None] = list(make_targets(2, 5, scored=True, seed=3))
    gradients = []
    for looks in (False, True):
        output = make_output()
        losses = run(AS_TRUTH, output, truth, {"t": teacher})
        if looks:
            assert pulls(output, losses)
        losses.total.backward()
        gradients.append([layer.logits.grad for layer in output.layers])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_without_teachers_or_annotations_there_is_nothing_to_compare(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, truth = make_output(), make_targets(4, 3)
    assert pulls(output, run(AS_TRUTH, output, truth)) == {}
    alone = LossConfig(truth=0, teacher=AS_TRUTH.teacher)
    assert pulls(output, run(alone, output, truth, {"t": list(truth)})) == {}
    # a teacher that finds nothing, and whose background does not count, pulls nowhere
    nothing = LossConfig(teacher=TeacherLossConfig(background=0.0))
    empty: list[Targets | None] = list(make_targets(0, 0))
    assert agreement(output, truth, nothing, t=empty) == {}


def test_agreements_are_cosines_of_sums() -> None:
    sums = {
        "a/product": -1.0,
        "a/truth": 4.0,
        "a/own": 1.0,
        "b/product": 0.0,
        "b/truth": 4.0,
        "b/own": 0.0,
    }
    assert agreements(sums) == {"a": -0.5}
    assert agreements({}) == {}
