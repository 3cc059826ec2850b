"""Copying a run to its URL while it trains: a failing network costs neither a step nor a run."""

import threading
import time
from collections.abc import Callable

from box_store.places.lease import TakenOver

_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 60.0


class Publisher:
    """Calls `push` in a thread of its own, once for all `ask`s since it began, until it succeeds.

    Only TakenOver, which `push` may raise, ends it, and is raised by `ask` and `finish`.
    patience_s: how long `finish` goes on trying.
    """

    def __init__(
        self,
        push: Callable[[], None],
        patience_s: float = 60.0,
        first_delay_s: float = _FIRST_DELAY_S,
    ) -> None:
        self._push = push
        self._patience_s = patience_s
        self._first_delay_s = first_delay_s
        self._change = threading.Condition()
        self._asked = 0
        self._done = 0
        self._deadline: float | None = None
        self._failure = ""
        self._displaced: TakenOver | None = None
        self._notes: list[str] = []
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def ask(self) -> list[str]:
        """Have what is new pushed; returns at once, with what is to be said of former pushes."""
        with self._change:
            if self._displaced is not None:
                raise self._displaced
            self._asked += 1
            self._change.notify()
            notes, self._notes = self._notes, []
        return notes

    def finish(self) -> str:
        """Wait for the last push; why it failed, "" if everything asked for was pushed."""
        with self._change:
            self._deadline = time.monotonic() + self._patience_s
            self._change.notify()
        self._thread.join()
        if self._displaced is not None:
            raise self._displaced
        return self._failure

    def _work(self) -> None:
        delay = self._first_delay_s
        while (asked := self._next()) is not None:
            try:
                self._push()
            except TakenOver as error:
                self._displaced = error
                return
            except Exception as error:
                # whatever it is, training must not end for it: `finish` reports it
                if not self._failed(" ".join(str(error).split()), delay):
                    return
                delay = min(2 * delay, _LONGEST_DELAY_S)
            else:
                self._succeeded(asked)
                delay = self._first_delay_s

    def _next(self) -> int | None:
        """The number of the last `ask`, once there is one to do; None when all is done."""
        with self._change:
            self._change.wait_for(lambda: self._asked > self._done or self._deadline is not None)
            return self._asked if self._asked > self._done else None

    def _failed(self, why: str, delay: float) -> bool:
        """Wait a while; False when it is too late for another try."""
        with self._change:
            if not self._failure:
                self._notes.append(f"warning   {why}; training goes on, and this is tried again")
            self._failure = why
            if self._deadline is None:
                self._change.wait_for(lambda: self._deadline is not None, delay)
                return True
            left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(delay, left)))
        return left > 0

    def _succeeded(self, asked: int) -> None:
        with self._change:
            self._done = asked
            if self._failure:
                self._notes.append("the copy at the URL is up to date again")
            self._failure = ""
