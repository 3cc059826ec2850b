"""What long work says of itself: at once what it does, then every ten seconds how far it is."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

EVERY_S = 10.0
Say = Callable[[str], None]


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour; `?` where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Patience:
    """Work of known length that says a line at its start, and from time to time as it advances.

    say: prints a line. what: is being done to `total` things called `unit`.
    """

    def __init__(
        self,
        say: Say,
        what: str,
        total: int | None = None,
        unit: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._what = what
        self._total = total
        self._unit = unit
        self._clock = clock
        self._done = 0
        self._begun = self._said = clock()
        say(what if total is None else f"{what} ({total} {unit})")

    def advance(self, n: int = 1) -> None:
        """So many more are done; says so if the last line is ten seconds old."""
        self._done += n
        self.remind()

    def remind(self) -> None:
        """Say how far it is, if the last line is ten seconds old."""
        now = self._clock()
        if now - self._said >= EVERY_S and (self._total is None or self._done < self._total):
            self._said = now
            self._say(self.line())

    def line(self) -> str:
        """`evaluating: 120 of 5000 images, 0:40 left`; without a total the time so far."""
        elapsed = self._clock() - self._begun
        if self._total is None or not self._done:
            return f"{self._what}: {duration(elapsed)} so far"
        left = elapsed / self._done * (self._total - self._done)
        done = f"{self._done} of {self._total} {self._unit}"
        return f"{self._what}: {done}, {duration(left)} left"


@contextmanager
def patience(say: Say, what: str, after_s: float = 0.0) -> Iterator[None]:
    """Say what the block does, and every ten seconds for how long it has done it.

    after_s: a block that ends within so many seconds says nothing. A thread does that: not for
    blocks that fork.
    """
    told = None if after_s else Patience(say, what)
    ended = threading.Event()

    def beat() -> None:
        if ended.wait(after_s):
            return
        late = told or Patience(say, what)
        while not ended.wait(EVERY_S):
            late.remind()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def if_it_takes(what: str, after_s: float = 3.0) -> AbstractContextManager[None]:
    """`patience` on stderr for what is over in no time more often than not."""
    return patience(lambda text: print(text, file=sys.stderr, flush=True), what, after_s)
