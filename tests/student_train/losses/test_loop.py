"""All losses at once are the losses one at a time, for the price of one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from student_train.losses import Criterion, LossConfig, Losses, MatchCost, TeacherLossConfig
from student_train.losses.loop import loop_losses
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets

MakeTargets = Callable[..., list[Targets]]
MakeOutput = Callable[..., StudentOutput]

CONFIGS = {
    "default": LossConfig(),
    "softmax": LossConfig(classification="softmax", giou_eps=0),
    "vfl": LossConfig(classification="vfl", match=MatchCost(alpha=0.4, gamma=1.5)),
    "vfl, soft": LossConfig(
        classification="vfl",
        quality_alpha=0.6,
        quality_gamma=1.5,
        teacher=TeacherLossConfig(label="soft", proposals="weighted"),
    ),
    "choices": LossConfig(
        class_loss=2,
        denoising_background=0,
        repeat=2,
        teacher=TeacherLossConfig(
            coefficients={"b": 0.3},
            matched_weight="power:2",
            background=0.2,
            label="soft",
            layers="last",
            proposals="weighted",
            groups=("matching", "one_to_many"),
            giou_form="released",
        ),
    ),
}


def everything(make_output: MakeOutput, make_targets: MakeTargets, labels: str = "class") -> Any:
    """Every stack that a student may return, images without boxes, and one not seen."""
    truth = make_targets(4, 0)
    output = make_output(proposals=labels, one_to_many=True, denoising=truth)
    first, second = make_targets(5, 3, seed=2, scored=True)
    # fewer queries than boxes, too
    crowd = make_targets(15, 2, seed=4, scored=True)
    return output, truth, {"a": [first, second], "b": [None, second], "c": crowd}


def gradients(losses: Losses, output: StudentOutput) -> list[Tensor]:
    predictions: list[Prediction] = [*output.layers, *(output.one_to_many or [])]
    predictions += [] if output.proposals is None else [output.proposals]
    predictions += [] if output.denoising is None else output.denoising.layers
    leaves = [tensor for p in predictions for tensor in (p.logits, p.boxes)]
    return list(torch.autograd.grad(losses.total, leaves, materialize_grads=True))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("labels", ["class", "binary"])
def test_all_at_once_is_one_at_a_time(
    make_output: MakeOutput, make_targets: MakeTargets, name: str, labels: str
) -> None:
    output, truth, teachers = everything(make_output, make_targets, labels)
    output = replace(output, classification=CONFIGS[name].form)
    criterion = Criterion(CONFIGS[name])
    supervisions = criterion.supervise(truth, teachers)
    ours = criterion(output, supervisions)
    wanted = loop_losses(output, supervisions, CONFIGS[name])
    assert set(ours.names) == set(wanted.names)
    assert len(ours.names) > 40
    for part, value in wanted.parts.items():
        torch.testing.assert_close(ours.parts[part], value, rtol=1e-5, atol=1e-6, msg=part)
    for mine, theirs in zip(gradients(ours, output), gradients(wanted, output), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


class Counting(TorchDispatchMode):
    """Counts operations by name, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(output: StudentOutput, truth: Any, teachers: Any) -> Counter[str]:
    criterion = Criterion()
    with Counting() as counting:
        losses = criterion(output, criterion.supervise(truth, teachers))
        gradients(losses, output)
    return counting.counts


def test_teachers_add_no_operations(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    truth = make_targets(4, 6)
    output = make_output(proposals="class", one_to_many=True, denoising=truth)
    # fewer boxes in all than there are classes: the cost has another order of operations then
    some, scored = make_targets(3, 2), make_targets(3, 2, seed=5, scored=True)
    output = replace(output, one_to_many=None)
    one = operations(output, some, {"a": list(scored)})
    many = operations(output, some, {name: list(scored) for name in "abcdefgh"})
    assert many == one
    # the losses wait for the device once, for the costs; nothing else asks for a value
    waits = {"aten._local_scalar_dense.default", "aten.nonzero.default"}
    assert not waits & set(many)
    # without a teacher there is exactly as much to do
    assert operations(output, make_targets(5, 5), {}).total() == one.total()
