"""What a run measured: running means of the losses, and `metrics.jsonl`, one JSON object a line."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor


class RunningMeans:
    """Means of named scalars over an interval, kept on the device: nothing waits for the host.

    A name that is absent in a step counts as 0 there, so parts of a sum stay parts of its mean.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._count = 0

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        """Add one step's `values` [len(names)]."""
        values = values.detach().float()
        self._sums[names] = self._sums[names] + values if names in self._sums else values.clone()
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means, after which counting starts anew."""
        totals: dict[str, float] = {}
        for names, sums in self._sums.items():
            for name, value in zip(names, sums.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + value / self._count
        self._sums, self._count = {}, 0
        return totals


class Clock:
    """Images per second and remaining time, from the steps since the last call."""

    def __init__(self, total_steps: int, step: int) -> None:
        self._total = total_steps
        self._step = step
        self._since = time.perf_counter()
        self._seconds_per_step: float | None = None
        self._excluded = 0.0

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Leave what happens inside (an evaluation, saving) out of the speed."""
        started = time.perf_counter()
        yield
        self._excluded += time.perf_counter() - started

    def read(self, step: int, batch_size: int) -> tuple[float, float]:
        """(images per second since the last call, seconds left to the last step)."""
        now = time.perf_counter()
        elapsed = max(1e-9, now - self._since - self._excluded)
        seconds = elapsed / max(1, step - self._step)
        # the first interval holds start-up costs: later ones replace it quickly
        known = self._seconds_per_step
        self._seconds_per_step = seconds if known is None else 0.5 * known + 0.5 * seconds
        self._since, self._step, self._excluded = now, step, 0.0
        return batch_size / seconds, (self._total - step) * self._seconds_per_step


class MetricsLog:
    """`metrics.jsonl`: a record of kind `train` every interval, `eval` every evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the records that a resumed run is going to write again."""
        if not self.path.exists():
            return
        kept = [_line(record) for record in read_metrics(self.path) if wanted(record)]
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(self.path)

    def write(self, kind: str, record: Mapping[str, Any]) -> None:
        """Append one record as a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"kind": kind, **record}))


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics file; a line cut short by a kill is skipped."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """NaN and infinity as null: JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
