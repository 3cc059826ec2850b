"""How far an experiment is: a bar with the time that is left, and a line a run."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from teach_detr.experiment.estimate import readable
from teach_detr.experiment.workers import Ended


class CellProgress:
    """Counts runs as they end."""

    def __init__(self, console: Console, n_runs: int, n_done: int) -> None:
        self._console = console
        self._n_runs = n_runs
        self._n_before = n_done
        self._n_ended = 0
        self._started = time.monotonic()
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
        pace = (time.monotonic() - self._started) / self._n_ended
        left = readable(pace * (self._n_runs - done))
        said = f"{readable(ended.seconds)}" if ended.error is None else f"failed: {ended.error}"
        self._console.print(
            f"[{done}/{self._n_runs}] {ended.job.name}  {said}  ({left} left)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
