"""Intervals of differences: how often equal arms are called different, and by hand."""

import numpy as np
import pytest

from teach_detr.experiment.interval import Gap, differences, pooled_spread
from teach_detr.experiment.same_arm import same_arm

RESAMPLES = 60


def gap(values: list[float], images: float = 0.0, condition: str = "c") -> Gap:
    rng = np.random.default_rng(0)
    shift = rng.normal(0, images, RESAMPLES) if images else np.zeros(RESAMPLES)
    found = np.asarray(values, np.float64)
    return Gap(condition, found, found[:, None] + shift)


def test_it_is_students_interval_by_hand() -> None:
    found = differences({"a": gap([0.01, 0.03, 0.05])})["a"]
    # t(0.975, 2) = 4.3027 times 0.02 / sqrt(3)
    assert found.mean == pytest.approx(0.03)
    assert found.high - found.mean == pytest.approx(4.3027 * 0.02 / np.sqrt(3), rel=1e-4)
    assert found.low == pytest.approx(2 * found.mean - found.high)
    assert (found.n_seeds, found.freedom) == (3, 2)
    assert found.image_error == pytest.approx(0)


def test_the_error_of_the_images_is_added() -> None:
    found = differences({"a": gap([0.02, 0.02, 0.02], images=0.01)})["a"]
    assert found.seed_error == 0
    assert found.image_error == pytest.approx(0.01, rel=0.3)
    assert found.low < 0 < found.high


def test_one_seed_says_nothing_of_seeds() -> None:
    found = differences({"a": gap([0.5], images=0.01), "b": gap([0.4], images=0.01)})
    assert not found["a"].says_of_seeds
    assert not found["b"].says_of_seeds
    # beside arms with several, its own spread is not known: it still says nothing
    mixed = differences({"a": gap([0.5]), "b": gap([0.1, 0.2, 0.1])})
    assert not mixed["a"].says_of_seeds
    assert mixed["b"].says_of_seeds


def test_the_spread_is_pooled_and_never_below_its_own() -> None:
    steady, wild = gap([0.1, 0.1, 0.1]), gap([0.0, 0.2, 0.4])
    spread, freedom = pooled_spread([steady, wild])
    assert spread == pytest.approx((0 + 0.04) / 2)
    # two comparisons that share a reference are worth 8/5 separate ones
    assert freedom == pytest.approx(2 * 8 / 5)
    found = differences({"steady": steady, "wild": wild})
    assert found["steady"].seed_error == pytest.approx(np.sqrt(0.02 / 3))
    assert found["wild"].seed_error == pytest.approx(np.sqrt(0.04 / 3))
    apart = [gap([0.1, 0.2, 0.1]), gap([0.1, 0.2, 0.1], condition="other")]
    assert pooled_spread(apart)[1] == 4


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0, 1, shape)


def collapsing(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One run in eight falls far below the others, as short trainings do."""
    return rng.normal(0, 1, shape) - 4 * (rng.random(shape) < 1 / 8)


@pytest.mark.parametrize("noise", [normal, collapsing])
@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("n_arms", [1, 6])
def test_equal_arms_are_called_different_in_one_of_twenty(
    noise: object, n_seeds: int, n_arms: int
) -> None:
    rng = np.random.default_rng([n_seeds, n_arms, noise is normal])
    wrong = total = 0
    for _ in range(400):
        runs = noise(rng, (n_arms + 1, n_seeds))  # type: ignore[operator]
        # the images of the evaluation: how far they lead astray, and what a bootstrap sees of it
        astray, seen = rng.normal(0, 0.5, n_arms + 1), rng.normal(0, 0.5, (n_arms + 1, RESAMPLES))
        gaps = {}
        for arm in range(1, n_arms + 1):
            values = runs[arm] - runs[0] + astray[arm] - astray[0]
            gaps[arm] = Gap("c", values, values[:, None] + seen[arm] - seen[0])
        for found in differences(gaps).values():
            wrong += not found.low <= 0 <= found.high
            total += 1
    # 5 % of 400 (2400) comparisons, and what chance adds to them
    assert wrong / total < (0.085 if n_arms == 1 else 0.065)


def test_a_difference_that_is_there_is_seen() -> None:
    rng = np.random.default_rng(1)
    found = differences({"a": gap((0.05 + rng.normal(0, 0.01, 5)).tolist(), images=0.005)})["a"]
    assert found.low > 0


def test_an_arm_is_not_called_different_from_itself() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0.25, 0.01, 24)
    found = same_arm(values, values[:, None] + rng.normal(0, 0.01, RESAMPLES))
    assert [each.n_seeds for each in found] == [2, 3, 5, 10]
    assert all(each.share <= 0.06 for each in found)
    # more seeds tell smaller differences
    widths = [each.half_width for each in found]
    assert widths == sorted(widths, reverse=True)
    assert same_arm(values[:9], values[:9, None]) == []
