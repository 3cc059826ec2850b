"""How sure a difference of two arms is: Student's t over seeds, a bootstrap over images within.

A mean difference of S seeds has two errors. That of the seeds is estimated from how the S
differences spread. Two or three say little about that, so the spread is pooled over all comparisons
of the experiment, and the larger of the two, a comparison's own and the pooled, is believed: an arm
that sometimes collapses is not made to look steady by the others. The error of the images is the
spread of the mean difference over resampled images. The interval is

    mean +- t(0.975, degrees of freedom of the spread) x sqrt(seeds' error^2 + images' error^2)

which is wide for few seeds because t is: 12.7 with two seeds and one comparison, 2.8 with five. An
earlier version took percentiles of resampled seeds, which said "better" or "worse" of equal arms in
one of four to eight comparisons of two or three seeds.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

# fewer are said to be few
ENOUGH_SEEDS = 5


@dataclass(frozen=True)
class Gap:
    """An arm minus the reference under one condition.

    values: [S], difference of AP of each seed. resampled: [S, R], the same over resampled images,
    which are the same for all seeds.
    """

    condition: Hashable
    values: NDArray[np.float64]
    resampled: NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A paired difference of AP with its 95 % interval.

    n_seeds: that it is over. seed_error, image_error: standard errors of the mean. freedom: degrees
    of freedom of the seeds' spread. With one seed, or where the experiment has one seed only, the
    interval is that of the images alone and says nothing of other seeds.
    """

    mean: float
    low: float
    high: float
    n_seeds: int
    seed_error: float
    image_error: float
    freedom: float

    @property
    def says_of_seeds(self) -> bool:
        """Whether the interval holds for other seeds."""
        return self.n_seeds > 1 and self.freedom > 0

    def half(self, level: float = 0.95) -> float:
        """Half of the interval of that level."""
        # without a spread of seeds there is the images' alone
        freedom = self.freedom if self.says_of_seeds else np.inf
        error = np.hypot(self.seed_error if self.says_of_seeds else 0.0, self.image_error)
        return float(student_t.ppf(0.5 + level / 2, freedom) * error)


def differences(gaps: Mapping[Hashable, Gap]) -> dict[Hashable, Difference]:
    """All comparisons of an experiment, by the same keys."""
    spread, freedom = pooled_spread([*gaps.values()])
    return {key: _difference(gap, spread, freedom) for key, gap in gaps.items()}


def pooled_spread(gaps: Sequence[Gap]) -> tuple[float, float]:
    """Variance of a single seed's difference, pooled, and its degrees of freedom.

    Comparisons under one condition share the reference, whose noise makes half of each variance:
    A of them have the degrees of freedom of 4 A / (A + 3) separate ones.
    """
    by_condition: dict[Hashable, list[Gap]] = {}
    for gap in gaps:
        if len(gap.values) > 1:
            by_condition.setdefault(gap.condition, []).append(gap)
    total = weight = freedom = 0.0
    for group in by_condition.values():
        for gap in group:
            total += gap.values.var(ddof=1) * (len(gap.values) - 1)
            weight += len(gap.values) - 1
        n = len(group)
        mean_freedom = sum(len(gap.values) - 1 for gap in group) / n
        freedom += mean_freedom * 4 * n / (n + 3)
    return (total / weight, freedom) if weight else (0.0, 0.0)


def _difference(gap: Gap, spread: float, freedom: float) -> Difference:
    n = len(gap.values)
    own = gap.values.var(ddof=1) if n > 1 else 0.0
    seeds = float(max(own, spread)) / n
    images = float(np.nanvar(np.nanmean(gap.resampled, 0), ddof=1))
    mean = float(gap.values.mean())
    found = Difference(
        mean, mean, mean, n, float(np.sqrt(seeds)), float(np.sqrt(images)), float(freedom)
    )
    half = found.half()
    return replace(found, low=mean - half, high=mean + half)
