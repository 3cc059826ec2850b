"""Stopping between two steps when asked to by Ctrl-C, SIGTERM or a time limit of the cluster."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self, TypeVar

from student_train.errors import LoaderDied

T = TypeVar("T")

# schedulers signal a process and then its whole group, and torchrun passes on what its processes
# got as well: that is one request
_ONE_REQUEST = 3.0
# a signal to a whole group may reach a loader before the process that it loads for
_SAME_SIGNAL = 2.0


class _Leave(BaseException):
    """Out of a wait. Readers of files catch every `Exception`, and must not catch this."""


class Stopped(Exception):
    """Work was given up for the signal of this number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def was_stopped(exit_code: int) -> bool:
    """Whether a process ended because it was asked to: by Ctrl-C or SIGTERM, noted (128 + the
    signal's number, as shells have it) or not (minus the number, as `subprocess` has it).
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    return exit_code in {128 + number for number in signals} | {-number for number in signals}


class StopRequest:
    """While active, SIGINT and SIGTERM only leave a note; a second SIGINT interrupts at once, and a
    second SIGTERM, some seconds later, ends the process at once.

    `signal_number` is 0 until one came. In another thread than the main one, where Python delivers
    no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._waits = False
        self._noted_at = 0.0
        self._owner = os.getpid()
        self._former: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def waiting(self, wait: Callable[[], T]) -> T:
        """What `wait` returns: waiting for something that may never come, such as a file of a
        server that is gone, and changing nothing that has to stay whole.

        Raises:
            Stopped: a signal came before or meanwhile, maybe to a loader first, which died of it.
        """
        try:
            try:
                self._waits = True
                if self.signal_number:
                    raise _Leave
                return wait()
            finally:
                self._waits = False
        except _Leave:
            raise Stopped(self.signal_number) from None
        except LoaderDied:
            if self._former and self._comes_within(_SAME_SIGNAL):
                raise Stopped(self.signal_number) from None
            raise

    def _comes_within(self, seconds: float) -> bool:
        """Whether a signal has come, or comes in that time."""
        end = time.monotonic() + seconds
        while not self.signal_number and time.monotonic() < end:
            time.sleep(0.05)
        return bool(self.signal_number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # loader workers inherit this handler when they are forked: the parent decides for them
        if os.getpid() != self._owner:
            return
        if self.signal_number and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal_number and time.monotonic() - self._noted_at > _ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self.signal_number:
            self.signal_number, self._noted_at = number, time.monotonic()
        if self._waits:
            raise _Leave
