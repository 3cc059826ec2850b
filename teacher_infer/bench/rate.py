"""How much the service costs beside the model: its rate over that of a bare loop, in one run.

The bare loop is what one would write by hand: decode a batch, predict, go on, in one process and
with as many threads. The service does the same work through pools of workers, with decoding ahead,
rows sent to the driver, and units written to a store. All load the teacher first, which is not
counted, and they take turns, so that a busy machine slows all.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from box_store.errors import TeachDetrError
from box_store.measure.processes import cpu_seconds
from box_store.store.store import BoxStore
from teacher_infer.bench.processes import started_processes
from teacher_infer.data.dataset import Dataset
from teacher_infer.data.images import ImageError, ImageTask, load_image
from teacher_infer.run.prepare import prepare
from teacher_infer.run.progress import PlainReporter, Reporter
from teacher_infer.run.service import Service
from teacher_infer.teachers.loaded import load_teacher
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import WorkerPool, cores, thread_limit


@dataclass(frozen=True)
class Run:
    """The data set labelled once: images a second by the clock, and CPU seconds an image of driver
    and worker, which say the same on a busy machine as on an idle one.

    background: share of a core that Ray's own processes took meanwhile, whatever was labelled.
    """

    images_per_s: float
    cpu_s_per_image: float
    background: float = 0.0


@dataclass(frozen=True)
class PoolRuns:
    """The service through one pool, a run each round. name: how the pool is chosen."""

    name: str
    description: str
    runs: list[Run]


@dataclass(frozen=True)
class BenchResult:
    """The bare loop, and the service through each pool."""

    n_images: int
    threads: int
    bare: list[Run]
    pools: list[PoolRuns]

    def ratios(self, pool: PoolRuns) -> list[float]:
        """A pool's rate over the loop's, round by round."""
        pairs = zip(pool.runs, self.bare, strict=True)
        return [ours.images_per_s / loop.images_per_s for ours, loop in pairs]

    def cpu_ratios(self, pool: PoolRuns) -> list[float]:
        """The loop's CPU time over the pool's, round by round: the rates' ratio on one core."""
        pairs = zip(pool.runs, self.bare, strict=True)
        return [loop.cpu_s_per_image / ours.cpu_s_per_image for ours, loop in pairs]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "images": self.n_images,
            "threads": self.threads,
            "cores": cores(),
            "bare": [vars(run) for run in self.bare],
            "pools": {
                pool.name: {
                    "description": pool.description,
                    "runs": [vars(run) for run in pool.runs],
                    "ratio": statistics.median(self.ratios(pool)),
                    "cpu_ratio": statistics.median(self.cpu_ratios(pool)),
                }
                for pool in self.pools
            },
        }

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.n_images} images, models on {self.threads} threads, {cores()} cores",
            f"bare loop  {_rates(self.bare)}",
        ]
        for pool in self.pools:
            lines += [
                f"{pool.name:<9}  {_rates(pool.runs)}   ({pool.description})",
                f"           {_medians(self.ratios(pool))} of the bare loop's rate",
                f"           {_medians(self.cpu_ratios(pool))} of its work a CPU second",
            ]
            if background := statistics.median(run.background for run in pool.runs):
                lines.append(f"           Ray's own processes: {background:.1%} of a core")
        return "\n".join(lines)


class _Meter(PlainReporter):
    """CPU time of driver and workers from the first unit handed out to the last image that came
    back, and what Ray's own processes took meanwhile."""

    def __init__(self, console: Console, n_images: int) -> None:
        super().__init__(console)
        self._n_left = n_images
        self._began: tuple[float, dict[int, float], dict[int, float]] | None = None
        self.cpu_s = self.background = 0.0

    def state(self, name: str, text: str) -> None:
        """See `Reporter.state`."""
        super().state(name, text)
        if text == "labelling" and self._began is None:
            self._began = (time.perf_counter(), *_cpu_times())

    def advance(self, name: str, n_images: int, n_bad: int) -> None:
        """See `Reporter.advance`."""
        super().advance(name, n_images, n_bad)
        self._n_left -= n_images
        if self._n_left > 0 or self._began is None:
            return
        started, labelling, others = self._began
        labelling_now, others_now = _cpu_times()
        self.cpu_s = _gained(labelling, labelling_now)
        if len(labelling_now) > 1:
            # otherwise Ray, if it runs at all, runs for somebody else
            wall_s = time.perf_counter() - started
            self.background = _gained(others, others_now) / wall_s


def bench(
    dataset: Dataset,
    spec: TeacherSpec,
    pools: Mapping[str, Callable[[], WorkerPool]],
    console: Console,
    rounds: int,
) -> BenchResult:
    """Label the data set `rounds` times by the loop and through each pool; nothing is kept.

    Raises:
        TeachDetrError: the teacher does not load, or not all images could be done.
    """
    spec = spec.asking(dataset.categories.names)
    threads = spec.threads or thread_limit(cores())
    # everybody with as many threads, whatever a pool would give by itself
    spec = replace(spec, threads=threads)
    bare: list[Run] = []
    found = {name: PoolRuns(name, "", []) for name in pools}
    n_images = len(dataset.tasks)
    for number in range(rounds):
        # whoever comes first finds the files out of the system's cache: take turns at that too
        turns = ["", *pools]
        shift = number % len(turns)
        for name in turns[shift:] + turns[:shift]:
            if not name:
                bare.append(_bare_run(dataset.tasks, spec, threads))
                continue
            pool, meter = pools[name](), _Meter(console, n_images)
            rate = service_rate(dataset, spec, pool, meter)
            found[name].runs.append(Run(rate, meter.cpu_s / n_images, meter.background))
            found[name] = replace(found[name], description=pool.description)
    return BenchResult(n_images, threads, bare, list(found.values()))


def service_rate(
    dataset: Dataset, spec: TeacherSpec, pool: WorkerPool, reporter: Reporter
) -> float:
    """Images a second through the service, from the first unit handed out to the last one stored.

    Raises:
        TeachDetrError: not all images could be done.
    """
    with tempfile.TemporaryDirectory(prefix="teach-detr-bench-") as folder:
        store = BoxStore.create(Path(folder) / "store", dataset.categories, dataset.info)
        job = prepare(store, dataset, spec)
        Service(store, dataset, pool, reporter).run([job])
    if job.error or job.images_per_s is None or job.failed_units:
        raise TeachDetrError(job.error or f"teacher {spec.name}: not all images could be done")
    return job.images_per_s


def _bare_run(tasks: Sequence[ImageTask], spec: TeacherSpec, threads: int) -> Run:
    teacher = load_teacher(spec.adapter_spec(spec.device, threads))
    started, cpu_started = time.perf_counter(), time.process_time()
    for start in range(0, len(tasks), spec.batch_size):
        images: list[np.ndarray] = []
        for task in tasks[start : start + spec.batch_size]:
            try:
                images.append(load_image(task))
            except ImageError:
                continue
        if images:
            teacher.predict(images)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    return Run(len(tasks) / wall_s, cpu_s / len(tasks))


def _cpu_times() -> tuple[dict[int, float], dict[int, float]]:
    """CPU seconds by process: of this one and its workers, and of the others it has started."""
    workers, others = started_processes()
    labelling = {pid: cpu_seconds(pid) for pid in (os.getpid(), *workers)}
    return labelling, {pid: cpu_seconds(pid) for pid in others}


def _gained(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(used - before.get(pid, 0.0) for pid, used in after.items())


def _rates(runs: Sequence[Run]) -> str:
    rates = ", ".join(f"{run.images_per_s:.2f}" for run in runs)
    cpu = ", ".join(f"{run.cpu_s_per_image * 1e3:.1f}" for run in runs)
    return f"{rates} images/s; {cpu} CPU ms an image"


def _medians(ratios: Sequence[float]) -> str:
    return f"median {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)})"
