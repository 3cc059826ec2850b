"""What the service needs of whatever holds its workers: Ray, or this machine alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from teacher_infer.data.images import ImageTask
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.worker import Labelled, Loaded


@dataclass(frozen=True)
class Started:
    """The worker has what it needs of the machine, and is loading its teacher: it can be killed."""

    worker: int


@dataclass(frozen=True)
class Ready:
    """The worker's teacher is loaded."""

    worker: int
    loaded: Loaded


@dataclass(frozen=True)
class Refused:
    """The teacher cannot be loaded, or be read, here or anywhere; the worker is gone."""

    worker: int
    message: str
    exit_code: int


@dataclass(frozen=True)
class Batch:
    """Some images of the worker's unit are done."""

    worker: int
    labelled: Labelled


@dataclass(frozen=True)
class Finished:
    """All images of the worker's unit are done; it waits for another."""

    worker: int


class Cause(StrEnum):
    """Why a worker is gone, as far as one can know: whom the loss puts under suspicion."""

    CRASH = "crash"  # its process ended: an image, the batch, or bad luck
    HUNG = "hung"  # it answered no more and was killed
    MEMORY = "memory"  # it was ended because it needed too much memory
    MACHINE = "machine"  # the machine went, which is nobody's fault


@dataclass(frozen=True)
class Died:
    """The worker is gone, with whatever it was doing."""

    worker: int
    reason: str
    cause: Cause = Cause.CRASH


Event = Started | Ready | Refused | Batch | Finished | Died


class WorkerPool(Protocol):
    """Workers, addressed by number. Each holds one teacher and labels one unit at a time."""

    description: str

    def start(self, spec: TeacherSpec) -> int | None:
        """Begin to load a teacher in a new worker; None while there is no room for one."""
        ...

    def submit(
        self, worker: int, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> None:
        """Hand a unit to a worker that is ready. `careful`: see `Worker.label`."""
        ...

    def poll(self, timeout: float) -> list[Event]:
        """What has happened since; waits up to `timeout` seconds for something to happen."""
        ...

    def stop(self, worker: int) -> None:
        """Release a worker, whatever it does. No more events come of it."""
        ...

    def close(self) -> None:
        """Release all of them."""
        ...


def cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_limit(n: float) -> int:
    """`n` threads, or fewer where OMP_NUM_THREADS asks for fewer; at least one."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    limit = int(asked) if asked.isdecimal() and int(asked) > 0 else int(n)
    return max(1, min(int(n), limit))


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that keep every numeric library of a new process to so many threads.

    Two processes that each take all cores slow each other down many times over, by spinning.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))
