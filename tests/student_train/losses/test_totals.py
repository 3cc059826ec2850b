"""What losses are divided by when several ranks train."""

from collections.abc import Callable

import pytest
import torch

import student_train.losses.totals as totals_module
from student_train.losses import Criterion, LossConfig
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets


@pytest.mark.parametrize(("counts", "factor"), [("mean", 0.5), ("own", 1.0)])
def test_denoising_may_count_the_boxes_of_its_own_rank(
    make_output: Callable[..., StudentOutput],
    make_targets: Callable[..., list[Targets]],
    monkeypatch: pytest.MonkeyPatch,
    counts: str,
    factor: float,
) -> None:
    truth = make_targets(4, 6)
    output = make_output(denoising=truth)
    criterion = Criterion(LossConfig(denoising_counts=counts))  # type: ignore[arg-type]
    alone = criterion(output, criterion.supervise(truth)).parts
    monkeypatch.setattr(totals_module.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(totals_module.dist, "get_world_size", lambda: 2)
    # the other rank has three times as many boxes
    monkeypatch.setattr(totals_module.dist, "all_reduce", lambda sums: sums.mul_(4))
    shared = criterion(output, criterion.supervise(truth)).parts
    for name, value in shared.items():
        want = factor if name.startswith("denoising/") else 0.5
        torch.testing.assert_close(value, alone[name] * want)
    assert any(name.startswith("denoising/") for name in shared)
