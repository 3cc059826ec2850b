"""The pool of solvers: every problem solved, in order, whatever the threads do."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from student_train.losses import solver
from student_train.losses.solver import UnsolvableCosts, in_background, n_threads, solve


def problems(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((int(rng.integers(1, 40)), 30)).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_pool_solves_what_scipy_solves(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "n_threads", lambda: threads)
    costs = problems(50)
    for cost, found in zip(costs, solve(costs), strict=True):
        for mine, theirs in zip(found, linear_sum_assignment(cost), strict=True):
            assert np.array_equal(mine, theirs)


def test_nothing_to_solve() -> None:
    assert solve([]) == []


def test_costs_that_are_not_finite_are_named() -> None:
    costs = problems(9)
    costs[4][0, 3] = np.nan
    costs[7][0, 0] = np.nan
    with pytest.raises(UnsolvableCosts) as caught:
        solve(costs)
    assert caught.value.index == 4


def test_more_callers_than_threads_finish() -> None:
    # each waits inside the pool for problems that others of the pool solve
    waiting = [in_background(lambda: len(solve(problems(5)))) for _ in range(4 * n_threads())]
    assert [each.result(timeout=60) for each in waiting] == [5] * len(waiting)
    with ThreadPoolExecutor(4) as outside:
        assert list(outside.map(lambda _: len(solve(problems(5))), range(8))) == [5] * 8


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert n_threads() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert n_threads() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    assert n_threads() == 1
