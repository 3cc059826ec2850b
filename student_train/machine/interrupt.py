"""Stopping between two steps when asked to by Ctrl-C, SIGTERM or a time limit of the cluster."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self


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
    """While active, SIGINT and SIGTERM only leave a note; a second SIGINT interrupts at once.

    `signal_number` is 0 until one came. In another thread than the main one, where Python delivers
    no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.signal_number = 0
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        # loader workers inherit this handler when they are forked: the parent decides for them
        if os.getpid() != self._owner:
            return
        if self.signal_number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
