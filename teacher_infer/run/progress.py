"""What a run says while it goes: live bars on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from box_store.patience import EVERY_S, duration


class Reporter(Protocol):
    """Told by the service what happens. Used as a context manager around the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def teacher(self, name: str, n_images: int, n_done: int) -> None:
        """A teacher of the run, `n_done` of whose images are in the store already."""
        ...

    def state(self, name: str, text: str) -> None:
        """What the teacher is doing: `loading`, `labelling`, `done`."""
        ...

    def advance(self, name: str, n_images: int, n_bad: int) -> None:
        """So many more images are labelled, so many of them unsuccessfully."""
        ...

    def note(self, text: str) -> None:
        """A sentence that should stay on the screen."""
        ...


@dataclass
class Pace:
    """How fast one teacher goes, counted from its first image on: loading would blur it."""

    n_images: int
    n_before: int
    n_new: int = 0
    n_bad: int = 0
    state: str = "waiting"
    started: float | None = None
    clock: Callable[[], float] = field(default_factory=lambda: time.monotonic, repr=False)

    def begin(self) -> None:
        """The teacher is ready for its first image."""
        if self.started is None:
            self.started = self.clock()

    @property
    def images_per_s(self) -> float | None:
        """None before the first image."""
        elapsed = self.clock() - self.started if self.started is not None else 0.0
        return self.n_new / elapsed if self.n_new and elapsed > 0 else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end at this rate; None while there is no rate."""
        rate = self.images_per_s
        return (self.n_images - self.n_before - self.n_new) / rate if rate else None

    def text(self) -> str:
        """`5.2 images/s, 0:12 to go, 2 bad`, or the state where there is no rate."""
        rate, eta = self.images_per_s, self.eta_s
        parts = [self.state]
        if rate is not None and eta is not None and self.state == "labelling":
            parts = [f"{rate:.3g} images/s", f"{duration(eta)} to go"]
        if self.n_bad:
            parts.append(f"{self.n_bad} bad")
        return ", ".join(parts)


class PlainReporter:
    """Lines, for logs and pipes: one when something changes, one every ten seconds otherwise."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: dict[str, Pace] = {}
        self._spoken: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def teacher(self, name: str, n_images: int, n_done: int) -> None:
        """See `Reporter.teacher`."""
        self._paces[name] = Pace(n_images, n_done)

    def state(self, name: str, text: str) -> None:
        """See `Reporter.state`."""
        pace = self._paces[name]
        if text == "labelling":
            pace.begin()
        if pace.state != text:
            pace.state = text
            self._say(name)

    def advance(self, name: str, n_images: int, n_bad: int) -> None:
        """See `Reporter.advance`."""
        pace = self._paces[name]
        pace.n_new += n_images
        pace.n_bad += n_bad
        if time.monotonic() - self._spoken.get(name, 0.0) > EVERY_S:
            self._say(name)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _say(self, name: str) -> None:
        pace = self._paces[name]
        self._spoken[name] = time.monotonic()
        self.note(f"{name}: {pace.n_before + pace.n_new}/{pace.n_images} images, {pace.text()}")


class LiveReporter:
    """A bar for each teacher, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
        )
        self._paces: dict[str, Pace] = {}
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def teacher(self, name: str, n_images: int, n_done: int) -> None:
        """See `Reporter.teacher`."""
        self._paces[name] = Pace(n_images, n_done)
        self._tasks[name] = self._progress.add_task(
            name, total=n_images, completed=n_done, pace="waiting"
        )

    def state(self, name: str, text: str) -> None:
        """See `Reporter.state`."""
        pace = self._paces[name]
        if text == "labelling":
            pace.begin()
        pace.state = text
        self._draw(name)

    def advance(self, name: str, n_images: int, n_bad: int) -> None:
        """See `Reporter.advance`."""
        pace = self._paces[name]
        pace.n_new += n_images
        pace.n_bad += n_bad
        self._draw(name)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._progress.console.print(text, markup=False, highlight=False)

    def _draw(self, name: str) -> None:
        pace = self._paces[name]
        done = pace.n_before + pace.n_new
        self._progress.update(self._tasks[name], completed=done, pace=pace.text())


def make_reporter(console: Console) -> Reporter:
    """The live table where `console` is a terminal, plain lines where it is not."""
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)
