"""One compared quantity: how far it is from the golden number, and how far it may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    set: str
    """the golden set"""
    output: str
    """what was compared, in the set's own words"""
    error: float | None
    """the largest error; a count of wrong entries for indices and pairs; none for a skipped set"""
    tolerance: float | None
    """largest error allowed"""
    status: Literal["pass", "fail", "skip"]
    note: str = ""
    """kind of error, or why the set was skipped"""

    @property
    def passed(self) -> bool:
        """False for a failure alone: a skipped set is no failure."""
        return self.status != "fail"

    def to_json(self) -> dict[str, Any]:
        """Fields by name; an infinite error (other shape, NaN) becomes null."""
        finite = self.error is not None and np.isfinite(self.error)
        return asdict(self) | {"error": self.error if finite else None}


def row(set_name: str, output: str, error: float, tolerance: float, note: str = "") -> Row:
    """A judged row; an error that is not a number fails."""
    status = "pass" if error <= tolerance else "fail"
    return Row(set_name, output, float(error), tolerance, status, note)


def skipped(set_name: str, why: str) -> Row:
    """A set that could not be compared."""
    return Row(set_name, "", None, None, "skip", why)


def largest_difference(got: Tensor | np.ndarray, want: np.ndarray) -> float:
    """Largest absolute difference; infinite if the shapes differ or something is not finite."""
    mine = got if isinstance(got, np.ndarray) else got.detach().numpy()
    if mine.shape != want.shape:
        return float("inf")
    difference = np.abs(mine.astype(np.float64) - want.astype(np.float64))
    # a NaN is no small difference
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0.0))


def relative_difference(got: float, want: float, floor: float = 1e-12) -> float:
    """|got - want| / max(|want|, floor); infinite for NaN."""
    difference = abs(got - want) / max(abs(want), floor)
    return difference if difference == difference else float("inf")


def wrong_entries(got: Tensor, want: np.ndarray) -> float:
    """How many indices differ."""
    mine = got.numpy()
    return float((mine != want).sum()) if mine.shape == want.shape else float("inf")


def wrong_pairs(got: Iterable[tuple[int, int]], want: np.ndarray) -> int:
    """Pairs (query, target) that only one side has. `want` is [2, n]."""
    return len(set(got) ^ {(int(q), int(t)) for q, t in want.T})
