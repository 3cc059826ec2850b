"""A batch that is cut into parts or shared among ranks has the gradient of the whole."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from student_train.losses import Criterion, LossConfig, TeacherLossConfig
from student_train.losses import totals as totals_module
from student_train.losses.totals import totals_of
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets

MakeTargets = Callable[..., list[Targets]]
MakeOutput = Callable[..., StudentOutput]

CONFIGS = [
    LossConfig(),
    LossConfig(teacher=TeacherLossConfig(matched_weight="power:2", proposals="weighted")),
    # divided by sums of weights, not by counts: known beforehand as long as every box gets a query
    LossConfig(classification="softmax", repeat=4),
    LossConfig(
        classification="softmax",
        repeat=4,
        teacher=TeacherLossConfig(background=0.3, groups=("matching", "one_to_many")),
    ),
    LossConfig(
        teacher=TeacherLossConfig(counts="own", proposals="unweighted"),
    ),
]


def image(output: StudentOutput, index: int) -> StudentOutput:
    def cut(prediction: Prediction) -> Prediction:
        here = slice(index, index + 1)
        return Prediction(prediction.logits[here], prediction.boxes[here])

    assert output.proposals is not None
    assert output.one_to_many is not None
    return replace(
        output,
        layers=[cut(each) for each in output.layers],
        proposals=cut(output.proposals),
        one_to_many=[cut(each) for each in output.one_to_many],
    )


def gradients(total: Tensor, output: StudentOutput) -> list[Tensor]:
    assert output.proposals is not None
    assert output.one_to_many is not None
    predictions = [*output.layers, *output.one_to_many, output.proposals]
    leaves = [tensor for p in predictions for tensor in (p.logits, p.boxes)]
    return list(torch.autograd.grad(total, leaves, materialize_grads=True))


def close(left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.fixture
def data(make_output: MakeOutput, make_targets: MakeTargets) -> Any:
    """Images with different numbers of boxes, one of which a teacher never saw."""
    few, some = make_targets(3, 5, seed=2, scored=True)
    teachers = {"a": [few, some], "b": [None, some], "c": [some, None]}
    return make_output(proposals="class", one_to_many=True), make_targets(1, 6), teachers


def parts_of(criterion: Criterion, truth: Any, teachers: Any) -> list[Any]:
    return [
        criterion.supervise([truth[i]], {name: [boxes[i]] for name, boxes in teachers.items()})
        for i in range(2)
    ]


@pytest.mark.parametrize("config", CONFIGS)
def test_parts_add_up_to_the_whole(data: Any, config: LossConfig) -> None:
    output, truth, teachers = data
    output = replace(output, classification=config.classification)
    criterion = Criterion(config)
    whole = criterion(output, criterion.supervise(truth, teachers))
    parts = parts_of(criterion, truth, teachers)
    totals = criterion.totals(parts, torch.device("cpu"))
    losses = [criterion(image(output, i), parts[i], totals[i]) for i in range(2)]
    assert losses[0].names == losses[1].names == whole.names
    torch.testing.assert_close(losses[0].values + losses[1].values, whole.values)
    close(gradients(losses[0].total + losses[1].total, output), gradients(whole.total, output))


@pytest.mark.parametrize("config", CONFIGS)
def test_ranks_average_to_the_whole(
    data: Any, config: LossConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, truth, teachers = data
    output = replace(output, classification=config.classification)
    criterion = Criterion(config)
    whole = criterion(output, criterion.supervise(truth, teachers))
    ranks = parts_of(criterion, truth, teachers)
    weights = config.classification == "softmax"
    counts = [totals_of([each], torch.device("cpu"), weights)[0].own for each in ranks]
    dist = totals_module.dist
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    # what the other rank would add
    monkeypatch.setattr(dist, "all_reduce", lambda mine: mine.copy_(counts[0] + counts[1]))
    losses = []
    for rank in range(2):
        (totals,) = criterion.totals([ranks[rank]], torch.device("cpu"))
        losses.append(criterion(image(output, rank), ranks[rank], totals))
    torch.testing.assert_close((losses[0].values + losses[1].values) / 2, whole.values)
    mean = (losses[0].total + losses[1].total) / 2
    close(gradients(mean, output), gradients(whole.total, output))
