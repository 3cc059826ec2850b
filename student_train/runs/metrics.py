"""What a run measured: running means of the losses, and `metrics.jsonl`, one JSON object a line."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from box_store.places.files import replacing
from box_store.places.locations import Location


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

    def state_dict(self) -> dict[str, Any]:
        """The unfinished interval, on the CPU."""
        sums = [(list(names), values.cpu()) for names, values in self._sums.items()]
        return {"sums": sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over an unfinished interval."""
        self._sums = {tuple(names): values.to(device) for names, values in state["sums"]}
        self._count = int(state["count"])


class Pace(NamedTuple):
    """How fast a run is."""

    images_per_second: float
    seconds_left: float
    data_wait: float
    """share of the time that went into waiting for data, 0..1"""


class Clock:
    """The pace since the last call, and the time that is left.

    `waited` collects the seconds spent waiting for data.
    """

    def __init__(self, total_steps: int, step: int) -> None:
        self._total = total_steps
        self._step = step
        self._since = time.perf_counter()
        self._seconds_per_step: float | None = None
        self._excluded = 0.0
        self.waited = 0.0

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Leave what happens inside (an evaluation, saving) out of the speed."""
        started = time.perf_counter()
        yield
        self._excluded += time.perf_counter() - started

    def peek(self, step: int, batch_size: int) -> Pace:
        """The pace since the last `read`, which goes on counting."""
        elapsed = max(1e-9, time.perf_counter() - self._since - self._excluded)
        seconds = elapsed / max(1, step - self._step)
        wait = min(1.0, self.waited / elapsed)
        return Pace(batch_size / seconds, (self._total - step) * seconds, wait)

    def read(self, step: int, batch_size: int) -> Pace:
        """The pace since the last call."""
        now = time.perf_counter()
        elapsed = max(1e-9, now - self._since - self._excluded)
        seconds = elapsed / max(1, step - self._step)
        # the first interval holds start-up costs: later ones replace it quickly
        known = self._seconds_per_step
        self._seconds_per_step = seconds if known is None else 0.5 * known + 0.5 * seconds
        wait = min(1.0, self.waited / elapsed)
        self._since, self._step, self._excluded, self.waited = now, step, 0.0, 0.0
        return Pace(batch_size / seconds, (self._total - step) * self._seconds_per_step, wait)


class MetricsLog:
    """`metrics.jsonl`: a record of kind `train` every interval, `eval` every evaluation.

    Lines that a full disk refuses are kept in memory and written with the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the records that a resumed run is going to write again."""
        if not self.path.exists():
            return
        kept = [_line(record) for record in read_metrics(self.path) if wanted(record)]
        with replacing(self.path) as file:
            file.write("".join(kept).encode())

    def write(self, kind: str, record: Mapping[str, Any]) -> str:
        """Append one record as a line; a sentence about why it has to wait, "" if it was written.

        Either all of the lines that are due are appended or none.
        """
        self._waiting.append(_line({"kind": kind, **record}))
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write("".join(self._waiting).encode())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, size)
            return f"{self.path} cannot be written ({error.strerror}); its lines wait in memory"
        self._waiting.clear()
        return ""

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        with suppress(OSError), self.path.open("rb") as file:
            os.fsync(file.fileno())


def read_metrics(path: Location) -> Iterator[dict[str, Any]]:
    """The records of a metrics file; a line cut short by a kill is skipped."""
    for line in path.read_bytes().decode(errors="replace").splitlines():
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
