"""Waiting for a store whose folder has gone: an unmounted disk, a server that restarts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from box_store.errors import StoreError, TeachDetrError
from box_store.patience import duration
from box_store.store.store import BoxStore

T = TypeVar("T")

_LOOK_EVERY_S = 2.0


@dataclass
class StoreWatch:
    """Does things to a store that may be away for a while.

    patience_s: how long it may be away before the run ends. say: takes the sentences. clock, sleep:
    seconds of this machine.
    """

    store: BoxStore
    say: Callable[[str], None]
    patience_s: float = 600.0
    clock: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)
    blocked_s: float = 0.0
    """seconds spent in `patiently`, in which its caller heard nobody"""

    def patiently(self, action: Callable[[], T]) -> T:
        """What `action` returns; it is done again once a store that is away has come back.

        Errors of a store that is there pass through.

        Raises:
            StoreError: the store did not come back in time.
        """
        started = self.clock()
        try:
            while True:
                try:
                    return action()
                except (TeachDetrError, OSError) as error:
                    if self._is_there():
                        raise
                    self._wait(error)
        finally:
            self.blocked_s += self.clock() - started

    def _is_there(self) -> bool:
        try:
            return (self.store.path / "store.json").exists()
        except OSError:
            # a file server that is gone answers with all sorts of errors
            return False

    def _wait(self, cause: Exception) -> None:
        left = self.clock()
        patience = duration(self.patience_s)
        self.say(f"the store {self.store.path} is gone: waiting up to {patience} for its return")
        while not self._is_there():
            if self.clock() - left >= self.patience_s:
                raise StoreError(
                    f"the store {self.store.path} went away and did not come back within "
                    f"{patience}. Units committed before are as safe as the disk: bring it back "
                    "(mount it), then run the same command again"
                ) from cause
            self.sleep(_LOOK_EVERY_S)
        self.say(f"the store {self.store.path} is back after {duration(self.clock() - left)}")
