"""One legible line of progress: a live bar on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from box_store.patience import EVERY_S, duration

_LOG_WIDTH = 160


@dataclass(frozen=True)
class Status:
    """What a progress line says; `losses` are means over the interval by folded name.

    `data_wait` is the share of the time (0..1) that went into waiting for data, `memory_gib` the
    most memory in use so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    data_wait: float
    memory_gib: float
    seconds_left: float
    lr: float
    losses: Mapping[str, float]

    def line(self) -> str:
        """Place, losses, learning rate, speed, wait, memory and remaining time in one line."""
        parts = " ".join(
            f"{short_name(name)} {value:.2f}"
            for name, value in self.losses.items()
            if name != "total"
        )
        total = self.losses.get("total", math.nan)
        return (
            f"epoch {self.epoch}/{self.epochs}  step {self.step}/{self.steps}  "
            f"loss {total:.2f} ({parts})  lr {self.lr:.2g}  "
            f"{self.images_per_second:.1f} images/s  data wait {100 * self.data_wait:.0f}%  "
            f"{self.memory_gib:.1f} GiB  {duration(self.seconds_left)} left"
        )


def short_name(folded: str) -> str:
    """`teacher:yolox` as `yolox`; the other names as they are."""
    return folded.removeprefix("teacher:")


class ProgressLine:
    """Shows `Status` lines and messages; does nothing on processes that do not print."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._spoke = time.monotonic()

    @property
    def is_overdue(self) -> bool:
        """Whether a log has not heard anything for ten seconds."""
        silent = self._console is None or self._bar is not None
        return not silent and time.monotonic() - self._spoke >= EVERY_S

    def begin(self, total_steps: int, step: int) -> None:
        """Start the bar, where there is a terminal to show it."""
        if self._console is None or not self._console.is_terminal:
            return
        columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("starting", total=total_steps, completed=step)
        self._bar.start()

    def show(self, status: Status) -> None:
        """A new interval's figures."""
        if self._bar is not None:
            self._bar.update(self._task, description=status.line(), completed=status.step)
        else:
            self.say(status.line())

    def advance(self, step: int) -> None:
        """Move the bar; a plain output shows nothing."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """A message that stays."""
        if self._console is not None:
            self._spoke = time.monotonic()
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show_table(self, table: Table) -> None:
        """A table that stays, as wide as it needs to be in a log."""
        if self._console is not None:
            self._console.print(table, width=None if self._console.is_terminal else _LOG_WIDTH)

    def remark(self, text: str) -> None:
        """A message about what is going on just now: in place of the bar's, or as a line."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        else:
            self.say(text)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
