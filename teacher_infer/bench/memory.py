"""Memory of a long run: that of the driver, of its workers and of Ray, as the run goes on.

The service labels a data set once; at every tenth of the images the processes are looked at.
"""

import os
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from box_store.measure.processes import descendants, resident_bytes
from teacher_infer.bench.processes import started_processes
from teacher_infer.bench.rate import service_rate
from teacher_infer.data.dataset import Dataset
from teacher_infer.run.progress import PlainReporter
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import WorkerPool

_LOOKS = 10


@dataclass(frozen=True)
class Look:
    """Resident memory in MiB after so many images: of the driver, of the largest worker (the driver
    itself where it labels), and of all that Ray needs beside them."""

    n_images: int
    driver: float
    worker: float
    ray: float


@dataclass(frozen=True)
class MemoryResult:
    """One run and what was seen of it."""

    pool: str
    images_per_s: float
    looks: list[Look]

    def growth(self, who: str) -> float:
        """MiB that `driver`, `worker` or `ray` has gained from the second look to the last.

        By the first, not everything that a run needs has been used yet.
        """
        return getattr(self.looks[-1], who) - getattr(self.looks[min(1, len(self.looks) - 1)], who)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "pool": self.pool,
            "images_per_s": self.images_per_s,
            "resident_mib": [vars(look) for look in self.looks],
            "growth_mib": {who: self.growth(who) for who in ("driver", "worker", "ray")},
        }

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.pool}; {self.images_per_s:.0f} images/s; resident memory in MiB",
            "   images   driver   worker   Ray's own",
        ]
        lines += [
            f"{look.n_images:9}{look.driver:9.1f}{look.worker:9.1f}{look.ray:12.1f}"
            for look in self.looks
        ]
        growth = [self.growth(who) for who in ("driver", "worker", "ray")]
        return "\n".join([*lines, "   growth" + "{:+9.1f}{:+9.1f}{:+12.1f}".format(*growth)])


class _Watcher(PlainReporter):
    """Looks at the processes at every tenth of the images."""

    def __init__(self, console: Console, n_images: int) -> None:
        super().__init__(console)
        self.looks: list[Look] = []
        self._n_images = n_images
        self._n_done = 0
        self._before = set(descendants(os.getpid()))

    def advance(self, name: str, n_images: int, n_bad: int) -> None:
        """See `Reporter.advance`."""
        super().advance(name, n_images, n_bad)
        self._n_done += n_images
        if self._n_done * _LOOKS >= self._n_images * (len(self.looks) + 1):
            self.looks.append(_look(self._n_done, self._before))


def memory_of_run(
    dataset: Dataset, spec: TeacherSpec, pool: WorkerPool, console: Console
) -> MemoryResult:
    """Label the data set once and watch the memory; the store is thrown away.

    Raises:
        TeachDetrError: not all images could be done.
    """
    watcher = _Watcher(console, len(dataset.tasks))
    description = pool.description
    rate = service_rate(dataset, spec.asking(dataset.categories.names), pool, watcher)
    return MemoryResult(description, rate, watcher.looks)


def _look(n_images: int, before: set[int]) -> Look:
    """`before` are processes that were there already, and are none of the run's."""
    driver = _mib(os.getpid())
    workers, others = ([p for p in found if p not in before] for found in started_processes())
    return Look(n_images, driver, max(map(_mib, workers), default=driver), sum(map(_mib, others)))


def _mib(pid: int) -> float:
    return (resident_bytes(pid) or 0) / 2**20
