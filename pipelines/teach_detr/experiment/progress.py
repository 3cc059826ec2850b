"""How far an experiment is: a bar with the time that is left, and a line a run."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from box_store.patience import duration
from teach_detr.experiment.estimate import readable
from teach_detr.experiment.workers import Ended, Job


class CellProgress:
    """Counts runs as they end."""

    def __init__(self, console: Console, n_runs: int, n_done: int) -> None:
        self._console = console
        self._n_runs = n_runs
        self._n_before = n_done
        self._n_ended = 0
        self._started, self._begun = time.monotonic(), time.time()
        self._last, self._left = self._started, 0.0
        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            # runs take minutes: the mean of all is a better guess than that of the last seconds
            speed_estimate_period=86400,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=n_runs, completed=n_done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def add(self, ended: Ended) -> None:
        """A run came to its end."""
        self._n_ended += 1
        done = self._n_before + self._n_ended
        self._bar.update(self._task, completed=done)
        self._last = time.monotonic()
        self._left = (self._last - self._started) / self._n_ended * (self._n_runs - done)
        left = duration(self._left)
        said = f"{readable(ended.seconds)}" if ended.error is None else f"failed: {ended.error}"
        self._say(f"[{done}/{self._n_runs}] {ended.job.name}  {said}  ({left} left)")

    def wait(self, jobs: Sequence[Job]) -> None:
        """Nothing ended for a while: say how far the runs are that write, in their own words."""
        done = self._n_before + self._n_ended
        for job in jobs:
            if job.log.exists() and job.log.stat().st_mtime >= self._begun:
                self._say(f"[{done}/{self._n_runs}] {job.name}  {last_line(job.log)}")
        if self._n_ended:
            # counted from the last end on: the pace so far knows nothing of the runs at work
            left = self._left - (time.monotonic() - self._last)
            self._say(f"[{done}/{self._n_runs}] about {duration(left)} left in all")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def last_line(log: Path) -> str:
    """What a run said last."""
    lines = log.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "is starting"
