"""How often would an experiment call an arm better or worse than itself? Its runs answer.

The runs of one arm are dealt out at random into two hands of as many seeds, over and over, and the
hands are compared as arms are. The share of comparisons whose interval leaves out 0 should be 5 %
at most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teach_detr.experiment.interval import Gap, differences

N_SEEDS = (2, 3, 5, 10, 20)
# fewer runs can hardly be dealt out differently
LEAST_RUNS = 10
DEALS = 1000
_SEED = 0


@dataclass(frozen=True)
class FalseAlarms:
    """Comparisons of an arm with itself, `n_seeds` runs against as many.

    share: of the deals that were called better or worse. half_width: of their intervals, median,
    in AP of 0..1.
    """

    n_runs: int
    n_seeds: int
    share: float
    half_width: float


def same_arm(values: NDArray[np.float64], resampled: NDArray[np.float64]) -> list[FalseAlarms]:
    """An arm against itself, for every number of seeds that it has runs for; nothing for few runs.

    values: AP of every run, [N]. resampled: the same over resampled images, [N, R].
    """
    n_runs = len(values)
    if n_runs < LEAST_RUNS:
        return []
    return [_deal(values, resampled, n_seeds) for n_seeds in N_SEEDS if 2 * n_seeds <= n_runs]


def _deal(values: NDArray[np.float64], resampled: NDArray[np.float64], n_seeds: int) -> FalseAlarms:
    rng = np.random.default_rng(_SEED)
    wrong, widths = 0, []
    for _ in range(DEALS):
        dealt = rng.permutation(len(values))[: 2 * n_seeds]
        one, other = dealt[:n_seeds], dealt[n_seeds:]
        gap = Gap("same", values[one] - values[other], resampled[one] - resampled[other])
        found = differences({"arm": gap})["arm"]
        wrong += not found.low <= 0 <= found.high
        widths.append(found.high - found.mean)
    return FalseAlarms(len(values), n_seeds, wrong / DEALS, float(np.median(widths)))
