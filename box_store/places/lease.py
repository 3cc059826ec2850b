"""One driver at a time on a store at a URL, where there are no file locks.

A lease is the object `lease.json` below the store: who holds it, and for how long after it was last
written. The holder writes it anew while it works. Whether it has lapsed is told by the store's own
clock: a probe object is written and the two times of writing are compared, so that no two machines
need to agree on the time. A store on a local path needs none of this: there, commits are serialised
by a file lock, and runs share the work.

Whoever knows that the holder is dead or hangs can take the lease over at once. A holder that lives
after all learns of it when it next renews its lease or wants to commit, and stops.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from box_store.errors import StoreError, TeachDetrError
from box_store.places.locations import Location, RemotePath, location

LAPSES_S = 60.0
"""how long a lease holds after it was last written"""
_RENEWALS = 4
# two drivers that saw no lease both write theirs; the later one stands when both look again
_SETTLE_S = 0.5


class TakenOver(StoreError):
    """Another driver has the store now: this one must not write any more."""


class Lease:
    """The right to write to a store. `check` before every commit; free of cost for a local path."""

    def __init__(self, root: Location, lapses_s: float) -> None:
        self._file = root / "lease.json" if isinstance(root, RemotePath) else None
        self._probe = root / f".probe-{secrets.token_hex(4)}"
        self._lapses_s = lapses_s
        self._owner = secrets.token_hex(8)
        self._stop = threading.Event()
        self._lost: TakenOver | None = None

    def keep(self) -> None:
        """Raises TakenOver once a renewal, or `check`, has found that; asks nobody."""
        if self._lost is not None:
            raise self._lost

    def check(self) -> None:
        """Raises TakenOver if another driver has the store, RemoteError if it does not answer."""
        self.keep()
        if self._file is None:
            return
        found = _read(self._file)
        if found.get("owner") != self._owner:
            self._lost = TakenOver(
                f"{self._file.parent} was taken over by {_named(found)}: this run stops. What it "
                "committed stays"
            )
            raise self._lost

    def take(self, by_force: bool = False) -> None:
        """Raises StoreError if another driver holds the store, unless it is taken by force."""
        if self._file is None:
            return
        found = _read(self._file)
        if found and not by_force and not _is_dead(found):
            age = self._age()
            if age < float(found.get("lapses_s", self._lapses_s)):
                raise StoreError(
                    f"{self._file.parent} is being written by {_named(found)}, which gave a sign "
                    f"of life {age:.0f} s ago: wait for it to end. If it is dead, its lease lapses "
                    f"{found.get('lapses_s')} s after that sign: try again then, or take the "
                    "store from it at once with --takeover"
                )
        self._write()
        time.sleep(_SETTLE_S)
        self.check()
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def release(self) -> None:
        """Let the next driver in; whoever has taken the store over keeps it."""
        self._stop.set()
        if self._file is not None:
            # a server that is gone lets the lease lapse instead
            with suppress(TeachDetrError):
                self.check()
                self._file.unlink()

    def _renew(self) -> None:
        while not self._stop.wait(self._lapses_s / _RENEWALS):
            # a failure is the next commit's to report; once displaced, `check` says so for good
            with suppress(TeachDetrError):
                self.check()
                if not self._stop.is_set():
                    self._write()

    def _write(self) -> None:
        assert self._file is not None
        content = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "lapses_s": self._lapses_s,
        }
        self._file.put(json.dumps(content).encode())

    def _age(self) -> float:
        """Seconds since the lease was written, by the clock of the store."""
        assert self._file is not None
        assert isinstance(self._probe, RemotePath)
        self._probe.put(b"")
        try:
            return (self._probe.modified_ns() - self._file.modified_ns()) / 1e9
        except FileNotFoundError:
            return float("inf")
        finally:
            self._probe.unlink(missing_ok=True)


@contextmanager
def hold(
    store: Path | RemotePath, *, lapses_s: float = LAPSES_S, takeover: bool = False
) -> Iterator[Lease]:
    """The lease of a store for the length of a block; nothing is written for a local store.

    The lease of a process of this machine that is gone, and one that has lapsed, are taken over;
    should their driver live after all, it stops before its next commit. With `takeover` so is the
    lease of a driver that seems to be alive.

    Raises:
        StoreError: another driver holds the store, or (RemoteError) the store cannot be reached.
    """
    lease = Lease(location(store), lapses_s)
    lease.take(takeover)
    try:
        yield lease
    finally:
        lease.release()


def _read(file: RemotePath) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {"host": "an unknown program"}
    return found if isinstance(found, dict) else {}


def _named(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', '?')} on {found.get('host', 'another machine')}"


def _is_dead(found: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that has ended."""
    if found.get("host") != socket.gethostname() or not isinstance(found.get("pid"), int):
        return False
    try:
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
