"""What a run measured: running means of the losses, and `metrics.jsonl`, one JSON object a line."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Means of named scalars over an interval, kept on the device: nothing waits for the host."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's scalars; names may differ from step to step."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, after which counting starts anew. One copy from the device."""
        if not self._sums:
            return {}
        names = list(self._sums)
        sums = torch.stack([self._sums[name] for name in names]).tolist()
        means = {name: s / self._counts[name] for name, s in zip(names, sums, strict=True)}
        self._sums, self._counts = {}, {}
        return means


class Clock:
    """Images per second and remaining time, from the steps since the last call."""

    def __init__(self, total_steps: int, step: int) -> None:
        self._total = total_steps
        self._step = step
        self._since = time.perf_counter()
        self._seconds_per_step: float | None = None
        self._excluded = 0.0

    def exclude(self, seconds: float) -> None:
        """Leave time spent on something else (an evaluation, saving) out of the speed."""
        self._excluded += seconds

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

    def __init__(self, path: Path, keep_until_step: int | None = None) -> None:
        """Open for appending; a resumed run drops records after its step: they come again."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and keep_until_step is not None:
            kept = [r for r in read_metrics(path) if r.get("step", 0) <= keep_until_step]
            partial = path.with_name(path.name + ".partial")
            partial.write_text("".join(_line(record) for record in kept), encoding="utf-8")
            partial.replace(path)

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
