"""How much the service costs beside the model: its rate over that of a bare loop, in one run.

The bare loop is what one would write by hand: decode a batch, predict, go on, in one process and
with as many threads. The service does the same work through a pool of workers, with decoding ahead,
rows sent to the driver, and units written to a store. Both load the teacher first, which is not
counted, and they take turns, so that a busy machine slows both.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
class BenchResult:
    """Images a second of the service and of the bare loop, a pair for each round."""

    n_images: int
    threads: int
    pool: str
    service: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        """Median over the rounds of the service's rate over the loop's."""
        return statistics.median(a / b for a, b in zip(self.service, self.bare, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "images": self.n_images,
            "threads": self.threads,
            "pool": self.pool,
            "service_images_per_s": self.service,
            "bare_images_per_s": self.bare,
            "ratio": self.ratio,
        }

    def text(self) -> str:
        """For people."""
        rounds = [
            f"  service {service:8.2f} images/s   bare loop {bare:8.2f} images/s   "
            f"ratio {service / bare:.3f}"
            for service, bare in zip(self.service, self.bare, strict=True)
        ]
        head = f"{self.n_images} images, {self.threads} threads, {self.pool}"
        return "\n".join([head, *rounds, f"median ratio {self.ratio:.3f} of a bare loop"])


def bench(
    dataset: Dataset,
    spec: TeacherSpec,
    make_pool: Callable[[], WorkerPool],
    reporter: Reporter,
    rounds: int,
) -> BenchResult:
    """Label the data set `rounds` times each way; the stores of the service are thrown away.

    Raises:
        TeachDetrError: the teacher does not load, or not all images could be done.
    """
    spec = spec.asking(dataset.categories.names)
    threads = spec.threads or thread_limit(cores())
    service_rates: list[float] = []
    bare_rates: list[float] = []
    pool_name = ""
    for number in range(rounds):
        # whoever comes first finds the files out of the system's cache: take turns at that too
        order = (True, False) if number % 2 else (False, True)
        for through_service in order:
            if through_service:
                pool = make_pool()
                pool_name = pool.description
                service_rates.append(_service_rate(dataset, spec, pool, reporter))
            else:
                bare_rates.append(_bare_rate(dataset.tasks, spec, threads))
    return BenchResult(len(dataset.tasks), threads, pool_name, service_rates, bare_rates)


def _service_rate(
    dataset: Dataset, spec: TeacherSpec, pool: WorkerPool, reporter: Reporter
) -> float:
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
