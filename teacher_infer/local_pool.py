"""Workers without Ray: one at a time, in this process or in a child of it."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing import Pipe
from typing import Any, Protocol

from teacher_infer.actor import Labelled, Loaded, LoadFailed, Worker, WorkerBroken
from teacher_infer.adapter import AdapterSpec
from teacher_infer.class_map import ClassMap
from teacher_infer.images import ImageTask
from teacher_infer.pool import (
    Batch,
    Died,
    Event,
    Finished,
    Ready,
    Refused,
    cores,
    thread_environment,
    thread_limit,
)
from teacher_infer.spec import TeacherSpec

# AGPL code stays in a process of its own, Ray or not; what crosses is boxes
_ALWAYS_ISOLATED = frozenset({"ultralytics"})
_GRACE_S = 5


class LocalPool:
    """One worker, so one teacher after the other, with all cores.

    isolate: give every teacher a child process, as those whose licence asks for it have always.
        What a framework does to a child (memory, settings, a crash) stays there.
    """

    def __init__(self, isolate: bool = False) -> None:
        self.description = "one worker in this process (no Ray)"
        self._isolate = isolate
        self._numbers = count()
        self._number: int | None = None
        self._host: _Host | None = None
        self._labels: Iterator[Labelled] | None = None
        self._loaded = False

    def start(self, spec: TeacherSpec) -> int | None:
        """See `WorkerPool.start`; there is room for one."""
        if self._host is not None:
            return None
        threads = spec.threads or thread_limit(cores())
        adapter_spec = spec.adapter_spec(spec.device, threads)
        isolated = self._isolate or spec.adapter in _ALWAYS_ISOLATED
        self._host = _Child(adapter_spec) if isolated else _Inline(adapter_spec)
        self._loaded = False
        self._number = next(self._numbers)
        return self._number

    def submit(
        self, worker: int, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> None:
        """See `WorkerPool.submit`."""
        if self._host is not None and worker == self._number:
            self._labels = self._host.label(tasks, class_map, careful)

    def poll(self, timeout: float) -> list[Event]:
        """See `WorkerPool.poll`; does the next step of the work itself, however long that takes."""
        if self._host is None or self._number is None:
            return []
        number = self._number
        try:
            if not self._loaded:
                return [self._load(number, self._host)]
            if self._labels is None:
                return []
            labelled = next(self._labels, None)
        except WorkerBroken as error:
            self.stop(number)
            return [Died(number, str(error))]
        if labelled is None:
            self._labels = None
            return [Finished(number)]
        return [Batch(number, labelled)]

    def _load(self, number: int, host: "_Host") -> Event:
        loaded = host.load()
        if isinstance(loaded, LoadFailed):
            self.stop(number)
            return Refused(number, loaded.message, loaded.exit_code)
        self._loaded = True
        return Ready(number, loaded)

    def stop(self, worker: int) -> None:
        """See `WorkerPool.stop`."""
        if self._host is not None and worker == self._number:
            self._host.close()
            self._host, self._labels, self._number = None, None, None

    def close(self) -> None:
        """See `WorkerPool.close`."""
        if self._number is not None:
            self.stop(self._number)


class _Host(Protocol):
    """Where the one worker runs."""

    def load(self) -> Loaded | LoadFailed: ...

    def label(
        self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> Iterator[Labelled]: ...

    def close(self) -> None: ...


class _Inline:
    """In this very process. What frameworks print goes to stderr: stdout belongs to the caller."""

    def __init__(self, spec: AdapterSpec) -> None:
        self._worker = Worker(spec)

    def load(self) -> Loaded | LoadFailed:
        with contextlib.redirect_stdout(sys.stderr):
            return self._worker.load()

    def label(
        self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> Iterator[Labelled]:
        labels = self._worker.label(tasks, class_map, careful)
        while True:
            with contextlib.redirect_stdout(sys.stderr):
                labelled = next(labels, None)
            if labelled is None:
                return
            yield labelled

    def close(self) -> None:
        self._worker.close()


class _Child:
    """In a child process (`teacher_infer.child`)."""

    def __init__(self, spec: AdapterSpec) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        # what it prints: nothing on stdout, and its last words are quoted when it dies
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        environment = os.environ | thread_environment(spec.threads or 1)
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "teacher_infer.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=environment,
            # Ctrl-C is for the parent, which then ends its child in order
            start_new_session=True,
        )
        theirs.close()
        self._send(spec)

    def load(self) -> Loaded | LoadFailed:
        return self._receive()

    def label(
        self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> Iterator[Labelled]:
        self._send((tuple(tasks), class_map, careful))
        while (answer := self._receive()) is not None:
            if isinstance(answer, str):
                raise WorkerBroken(answer)
            yield answer

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise WorkerBroken(self._last_words()) from error

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerBroken(self._last_words()) from error

    def _last_words(self) -> str:
        code = self._process.wait(_GRACE_S)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the worker's process ended with {how}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        self._connection.close()
        self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()
