"""One check: what it is called, how it ended, and what it saw."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# returns what it saw; raises CheckError where that is wrong, SkipError where it cannot be tried
Check = Callable[[], str]


class CheckError(Exception):
    """What was seen is not what should be."""


class SkipError(Exception):
    """The check does not apply to this machine: the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one check ended. detail: what was seen, or what went wrong."""

    name: str
    result: Literal["ok", "failed", "skipped"]
    detail: str
    seconds: float

    def line(self) -> str:
        word = {"ok": "ok", "failed": "FAIL", "skipped": "skip"}[self.result]
        return f"{word:4}  {self.name}: {self.detail}"


def run(checks: Sequence[tuple[str, Check]]) -> Iterator[Outcome]:
    """Outcomes one by one; whatever a check raises is its failure, and the next one runs."""
    for name, check in checks:
        start = time.perf_counter()
        try:
            result, detail = "ok", check()
        except SkipError as reason:
            result, detail = "skipped", str(reason)
        except CheckError as error:
            result, detail = "failed", str(error)
        except Exception as error:  # an operator may raise anything
            result, detail = "failed", f"{type(error).__name__}: {error}".replace("\n", " ")
        yield Outcome(name, result, detail, time.perf_counter() - start)


def relative_errors(
    names: Sequence[str], found: Sequence[Tensor], wanted: Sequence[Tensor], limit: float
) -> str:
    """The worst relative RMS error, as text. Raises CheckError beyond `limit` or not finite."""
    worst, where = 0.0, names[0]
    for name, a, b in zip(names, found, wanted, strict=True):
        if a.shape != b.shape:
            raise CheckError(f"{name}: expected shape {list(b.shape)}, got {list(a.shape)}")
        if not a.isfinite().all():
            raise CheckError(f"{name}: not finite")
        scale = b.double().norm().item()
        error = (a.double() - b.double()).norm().item() / max(scale, 1e-12)
        if error > worst:
            worst, where = error, name
    said = f"{worst:.1e} at most ({where}), limit {limit:.0e}"
    if worst > limit:
        raise CheckError(said)
    return said


def require_equal(names: Sequence[str], a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    """Raises CheckError unless every pair is the same to the last bit."""
    for name, x, y in zip(names, a, b, strict=True):
        if not torch.equal(x, y):
            raise CheckError(f"{name}: {(x != y).sum().item()} of {x.numel()} numbers differ")
