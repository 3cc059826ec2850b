"""Comparing on a machine that others use too: everything in turns, every ratio within a round.

Wall time says what a user waits for. The time that this process spent on processors hardly depends
on neighbours, and on a CPU it is the better witness of a few percent.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

Arm = TypeVar("Arm")


class Cost(NamedTuple):
    """Seconds that something took."""

    wall: float
    cpu: float
    """of all threads of this process"""


class Interval(NamedTuple):
    """A median, and between which values the true one lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], level: float = 0.9) -> "Interval":
        """From independent measurements, of whatever distribution: two of them, as far from the
        ends as `level` allows (sign test). Fewer than five cannot promise 90 %: then the ends.
        """
        ordered, n = sorted(values), len(values)
        outside, skip = 0.0, 0
        while skip < (n - 1) // 2:
            outside += 2 * math.comb(n, skip) / 2**n
            if outside > 1 - level:
                break
            skip += 1
        skip = max(0, skip - 1)
        return cls(statistics.median(values), ordered[skip], ordered[n - 1 - skip])

    def percent(self) -> str:
        """`+1.2 % (+0.8 .. +1.5)`."""
        return Interval(*(100 * each for each in self)).text("{:+.1f}", " %")

    def text(self, form: str, unit: str = "") -> str:
        """`5.1 (4.8 .. 5.5)`."""
        median, low, high = map(form.format, self)
        return f"{median}{unit} ({low} .. {high})"


def in_turns(n: int, arms: Sequence[Arm], measure: Callable[[Arm], Any]) -> dict[Arm, list[Any]]:
    """`n` measurements of each, every round beginning with another and every second one backwards:
    drift of clocks and caches cancels.
    """
    found: dict[Arm, list[Any]] = {each: [] for each in arms}
    for turn in range(n):
        first = turn // 2 % len(arms)
        order = [*arms[first:], *arms[:first]]
        for each in order if turn % 2 == 0 else reversed(order):
            found[each].append(measure(each))
    return found


def ratio(costs: Sequence[Cost], base: Sequence[Cost]) -> tuple[Interval, Interval]:
    """How much more something costs than what was measured in the same rounds: wall, processor."""
    wall = [a.wall / b.wall - 1 for a, b in zip(costs, base, strict=True)]
    cpu = [a.cpu / b.cpu - 1 for a, b in zip(costs, base, strict=True)]
    return Interval.of(wall), Interval.of(cpu)
