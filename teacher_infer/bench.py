"""How much the service costs beside the model: its rate over that of a bare loop, in one run.

The bare loop is what one would write by hand: decode a batch, predict, go on, in one process and
with as many threads. The service does the same work through pools of workers, with decoding ahead,
rows sent to the driver, and units written to a store. All load the teacher first, which is not
counted, and they take turns, so that a busy machine slows all.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import TeachDetrError
from box_store.store import BoxStore
from teacher_infer.adapter import load_teacher
from teacher_infer.dataset import Dataset
from teacher_infer.images import ImageError, ImageTask, load_image
from teacher_infer.pool import WorkerPool, cores, thread_limit
from teacher_infer.prepare import prepare
from teacher_infer.progress import Reporter
from teacher_infer.service import Service
from teacher_infer.spec import TeacherSpec


@dataclass(frozen=True)
class PoolRates:
    """Images a second through one pool, a value for each round. name: how the pool is chosen."""

    name: str
    description: str
    images_per_s: list[float]

    def ratios(self, bare: Sequence[float]) -> list[float]:
        """Of each round's rates."""
        return [ours / loop for ours, loop in zip(self.images_per_s, bare, strict=True)]


@dataclass(frozen=True)
class BenchResult:
    """Rates of the bare loop and of the service through each pool."""

    n_images: int
    threads: int
    bare: list[float]
    pools: list[PoolRates]

    def ratio(self, pool: PoolRates) -> float:
        """Median over the rounds of a pool's rate over the loop's."""
        return statistics.median(pool.ratios(self.bare))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "images": self.n_images,
            "threads": self.threads,
            "cores": cores(),
            "bare_images_per_s": self.bare,
            "pools": {
                pool.name: {
                    "description": pool.description,
                    "images_per_s": pool.images_per_s,
                    "ratio": self.ratio(pool),
                }
                for pool in self.pools
            },
        }

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.n_images} images, models on {self.threads} threads, {cores()} cores",
            f"bare loop  {_rates(self.bare)} images/s",
        ]
        for pool in self.pools:
            ratios = ", ".join(f"{ratio:.3f}" for ratio in pool.ratios(self.bare))
            lines += [
                f"{pool.name:<9}  {_rates(pool.images_per_s)} images/s   ({pool.description})",
                f"           median ratio {self.ratio(pool):.3f} of the bare loop ({ratios})",
            ]
        return "\n".join(lines)


def bench(
    dataset: Dataset,
    spec: TeacherSpec,
    pools: Mapping[str, Callable[[], WorkerPool]],
    reporter: Reporter,
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
    bare: list[float] = []
    found = {name: PoolRates(name, "", []) for name in pools}
    for number in range(rounds):
        # whoever comes first finds the files out of the system's cache: take turns at that too
        turns = ["", *pools]
        shift = number % len(turns)
        for name in turns[shift:] + turns[:shift]:
            if name:
                pool = pools[name]()
                found[name] = replace(found[name], description=pool.description)
                found[name].images_per_s.append(service_rate(dataset, spec, pool, reporter))
            else:
                bare.append(_bare_rate(dataset.tasks, spec, threads))
    return BenchResult(len(dataset.tasks), threads, bare, list(found.values()))


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


def _bare_rate(tasks: Sequence[ImageTask], spec: TeacherSpec, threads: int) -> float:
    teacher = load_teacher(spec.adapter_spec(spec.device, threads))
    started = time.perf_counter()
    for start in range(0, len(tasks), spec.batch_size):
        images: list[np.ndarray] = []
        for task in tasks[start : start + spec.batch_size]:
            try:
                images.append(load_image(task))
            except ImageError:
                continue
        if images:
            teacher.predict(images)
    return len(tasks) / (time.perf_counter() - started)


def _rates(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
