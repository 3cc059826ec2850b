"""Costs in one compiled pass are those of plain torch."""

from typing import Any

import pytest
import torch

from student_train.losses import costs
from student_train.losses.config import LossConfig, MatchCost
from student_train.losses.costs import pair_costs
from student_train.models.output import Prediction

pytest.importorskip("numba")


def random_case(dtype: torch.dtype, seed: int, boxes: int = 9) -> tuple[Prediction, Any, Any]:
    """Two layers, three images, 13 queries, 5 classes; some boxes of negative or no size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    own, wanted = draw(2, 3, 13, 4), draw(3, boxes, 4)
    own[..., 0, 2:] *= -1
    own[..., 1, 2:] = 0
    if boxes:
        wanted[:, 0, 2:] = 0
        wanted[:, -1] = own[0, :, 1]
    logits = 60 * draw(2, 3, 13, 5) - 30
    labels = torch.randint(0, 5, (3, boxes), generator=generator)
    return Prediction(logits, own), labels, wanted


def both(
    monkeypatch: pytest.MonkeyPatch, case: tuple[Prediction, Any, Any], config: LossConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    assert costs.pair_costs_kernel() is not None
    ours = pair_costs(*case, config)
    with monkeypatch.context() as without:
        without.setattr(costs, "pair_costs_kernel", lambda: None)
        return ours, pair_costs(*case, config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["focal", "softmax", "ia_bce", "vfl"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_both_ways_agree(monkeypatch, dtype: torch.dtype, form: Any, eps: float) -> None:
    config = LossConfig(
        classification=form, giou_eps=eps, match=MatchCost(class_cost=1.5, log_eps=100 * eps)
    )
    ours, plain = both(monkeypatch, random_case(dtype, 0), config)
    assert ours.dtype == plain.dtype == dtype
    exact = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(ours, plain, rtol=exact, atol=exact)


def test_half_precision_images_without_boxes_and_threads(monkeypatch) -> None:
    config = LossConfig()
    prediction, labels, wanted = random_case(torch.float32, 1)
    half = Prediction(prediction.logits.half(), prediction.boxes.half())
    ours, plain = both(monkeypatch, (half, labels, wanted), config)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain, rtol=2e-5, atol=2e-5)

    empty = random_case(torch.float32, 2, boxes=0)
    ours, plain = both(monkeypatch, empty, config)
    assert ours.shape == plain.shape == (2, 3, 0, 13)

    before = torch.get_num_threads()
    alone = pair_costs(prediction, labels, wanted, config)
    try:
        torch.set_num_threads(3)
        shared = pair_costs(prediction, labels, wanted, config)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, shared)


def test_what_is_no_number_stays_none(monkeypatch) -> None:
    prediction, labels, wanted = random_case(torch.float32, 3)
    prediction.boxes[0, 1, 4] = float("nan")
    prediction.boxes[1, 2, 5] = float("inf")
    ours, plain = both(monkeypatch, (prediction, labels, wanted), LossConfig())
    assert torch.equal(ours.isfinite(), plain.isfinite())
    assert not ours[0, 1, :, 4].isfinite().any()
