"""How long files take in runtimes, in turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from student_train.export.runtimes import Served

Feeds = Mapping[str, np.ndarray]


def in_turns(runs: Sequence[Callable[[int], float]], n_batches: int, rounds: int) -> list[float]:
    """The median of each of `runs`, which take the number of a batch and tell seconds.

    Every round has each of them see the same batch, one after the other; a first one is not
    counted, as memory and caches are filled then.
    """
    for run in runs:
        run(0)
    seconds: list[list[float]] = [[] for _ in runs]
    for at in range(rounds):
        for run, told in zip(runs, seconds, strict=True):
            told.append(run(at % n_batches))
    return [statistics.median(told) for told in seconds]


def served_run(served: Served, batches: Sequence[Feeds]) -> Callable[[int], float]:
    """A file in a runtime for `in_turns`: the time is that of the computation alone."""

    def run(at: int) -> float:
        served.run(batches[at])
        return served.seconds[-1]

    return run
