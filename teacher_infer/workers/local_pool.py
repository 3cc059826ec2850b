"""Workers without Ray: child processes, as many as a teacher asks for, or one in this process."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from teacher_infer.adapters.protocol import AdapterSpec
from teacher_infer.adapters.registry import adapter_info
from teacher_infer.data.images import ImageTask
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import (
    Batch,
    Died,
    Event,
    Finished,
    Ready,
    Refused,
    Started,
    cores,
    thread_environment,
    thread_limit,
)
from teacher_infer.workers.worker import Labelled, Loaded, LoadFailed, Worker, WorkerBroken

_GRACE_S = 5
# what a child runs; its argument is the number of its socket
_CHILD = ("-P", "-m", "teacher_infer.workers.child")


class LocalPool:
    """Workers of one teacher at a time, which share all cores.

    isolate: give every teacher child processes: as many as it asks for. Otherwise one worker runs
        in this very process, and a crash or a hang of the framework is one of the run; except for
        teachers of several workers, with a time limit, or whose licence asks for a process of their
        own, which have children always.
    """

    def __init__(self, isolate: bool = False) -> None:
        self.description = f"{'processes' if isolate else 'one worker in this process'} (no Ray)"
        self._isolate = isolate
        self._numbers = count()
        self._teacher = ""
        self._inline: dict[int, _Inline] = {}
        self._children: dict[int, _Child] = {}
        self._started: list[Event] = []

    def start(self, spec: TeacherSpec) -> int | None:
        """See `WorkerPool.start`; there is room for the workers of one teacher."""
        n_running = len(self._inline) + len(self._children)
        isolated = self._isolated(spec)
        n_wanted = spec.workers if isolated else 1
        if n_running and (self._teacher != spec.name or n_running >= n_wanted):
            return None
        threads = spec.threads or thread_limit(max(1, cores() // n_wanted))
        adapter_spec = spec.adapter_spec(spec.device, threads)
        number = next(self._numbers)
        if isolated:
            self._children[number] = _Child(adapter_spec)
            self._started.append(Started(number))
        else:
            self._inline[number] = _Inline(adapter_spec)
        self._teacher = spec.name
        return number

    def _isolated(self, spec: TeacherSpec) -> bool:
        has_limit = spec.batch_timeout is not None or spec.load_timeout is not None
        asks_for_it = spec.workers > 1 or has_limit
        return self._isolate or asks_for_it or adapter_info(spec.adapter).isolated

    def submit(
        self, worker: int, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> None:
        """See `WorkerPool.submit`."""
        host = self._inline.get(worker) or self._children.get(worker)
        if host is not None:
            host.submit(tasks, class_map, careful)

    def poll(self, timeout: float) -> list[Event]:
        """See `WorkerPool.poll`; the worker of this process does its next step, however long that
        takes."""
        if started := self._started:
            self._started = []
            return started
        for number, host in self._inline.items():
            return [self._event(number, host)] if host.busy else []
        if not self._children:
            return []
        numbers = {child.connection: number for number, child in self._children.items()}
        return [
            self._event(number, self._children[number])
            for connection in wait(list(numbers), timeout)
            if (number := numbers[connection]) in self._children  # type: ignore[index]
        ]

    def _event(self, number: int, host: "_Inline | _Child") -> Event:
        try:
            answer = host.receive()
        except WorkerBroken as error:
            self.stop(number)
            return Died(number, str(error))
        match answer:
            case Loaded():
                return Ready(number, answer)
            case LoadFailed(message, exit_code):
                self.stop(number)
                return Refused(number, message, exit_code)
            case None:
                return Finished(number)
            case _:
                return Batch(number, answer)

    def stop(self, worker: int) -> None:
        """See `WorkerPool.stop`."""
        host = self._inline.pop(worker, None) or self._children.pop(worker, None)
        if host is not None:
            host.close()

    def close(self) -> None:
        """See `WorkerPool.close`."""
        for worker in [*self._inline, *self._children]:
            self.stop(worker)


class _Inline:
    """In this very process. What frameworks print goes to stderr: stdout belongs to the caller.

    busy: there is something that `receive` would answer.
    """

    def __init__(self, spec: AdapterSpec) -> None:
        self._worker = Worker(spec)
        self._labels: Iterator[Labelled | LoadFailed] | None = None
        self.busy = True
        self._loaded = False

    def submit(self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool) -> None:
        self._labels = self._worker.label(tasks, class_map, careful)
        self.busy = True

    def receive(self) -> Loaded | LoadFailed | Labelled | None:
        with contextlib.redirect_stdout(sys.stderr):
            if self._labels is None:
                self.busy = False
                return self._worker.load()
            labelled = next(self._labels, None)
        self.busy = labelled is not None
        return labelled

    def close(self) -> None:
        self._worker.close()


class _Child:
    """In a child process (`teacher_infer.workers.child`)."""

    def __init__(self, spec: AdapterSpec) -> None:
        ours, theirs = Pipe()
        self.connection: Connection = ours
        # what it prints: nothing on stdout, and its last words are quoted when it dies
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        environment = os.environ | thread_environment(spec.threads or 1)
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, *_CHILD, str(theirs.fileno())],
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

    def submit(self, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool) -> None:
        self._send((tuple(tasks), class_map, careful))

    def receive(self) -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerBroken(self._last_words()) from error
        if isinstance(answer, str):
            raise WorkerBroken(answer)
        return answer

    def _send(self, message: Any) -> None:
        # to a child that died meanwhile: the next receive() says so
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def _last_words(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return "the worker's process closed its connection, and does not end"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"the worker's process ended with {how}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        self.connection.close()
        self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # one that waits for a dead disk does not even die
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        self._stderr.close()
