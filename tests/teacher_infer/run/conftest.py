"""A data set in units, its store, and workers that do what a test tells them."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from box_store.boxes import Boxes
from box_store.store.reader import read_images
from box_store.store.records import ImageRow
from box_store.store.store import BoxStore
from teacher_infer.data.dataset import Dataset, load_dataset
from teacher_infer.data.images import ImageTask
from teacher_infer.run.job import Job
from teacher_infer.run.prepare import prepare
from teacher_infer.run.progress import PlainReporter
from teacher_infer.run.service import Service
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import Batch, Cause, Died, Event, Finished, Ready, Refused
from teacher_infer.workers.worker import Labelled, Loaded

WEIGHTS = b"weights"


LOADED = Loaded(
    ("person", "unicorn", "car"),
    "MIT",
    {"fake": "1"},
    hashlib.sha256(WEIGHTS).hexdigest(),
    "cpu",
)


@dataclass
class FakePool:
    """Workers that label two images a step, and do what a test tells them on the way.

    deadly: images that kill their worker. on_batch: called before each; may raise. loads: what the
    n-th worker answers to being started. cause: of their deaths. reduced: the batch size that they
    have come down to.
    """

    deadly: set[int] = field(default_factory=set)
    on_batch: Callable[[int, list[ImageTask]], None] = lambda worker, tasks: None
    loads: Callable[[int, TeacherSpec], Loaded | str | None] = lambda n, spec: LOADED
    capacity: int = 2
    cause: Cause = Cause.CRASH
    reduced: int | None = None
    batch_sizes: list[int] = field(default_factory=list)
    description: str = "fake"
    started: list[str] = field(default_factory=list)
    handed: list[tuple[int, tuple[int, ...], bool]] = field(default_factory=list)
    closed: bool = False
    _alive: dict[int, TeacherSpec] = field(default_factory=dict)
    _steps: dict[int, deque[list[ImageTask]] | None] = field(default_factory=dict)
    _new: list[int] = field(default_factory=list)

    def start(self, spec: TeacherSpec) -> int | None:
        if len(self._alive) >= self.capacity:
            return None
        worker = len(self.started)
        self.started.append(spec.name)
        self.batch_sizes.append(spec.batch_size)
        self._alive[worker] = spec
        self._new.append(worker)
        return worker

    def submit(
        self, worker: int, tasks: Sequence[ImageTask], class_map: ClassMap, careful: bool
    ) -> None:
        assert class_map.mapping == {"person": 1, "unicorn": None, "car": 3}
        self.handed.append((worker, tuple(task.image_id for task in tasks), careful))
        step = 1 if careful else 2
        self._steps[worker] = deque(
            list(tasks[start : start + step]) for start in range(0, len(tasks), step)
        )

    def poll(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        for worker in list(self._alive):
            if worker in self._new:
                self._new.remove(worker)
                events.append(self._load(worker))
            elif (steps := self._steps.get(worker)) is not None:
                events.append(self._step(worker, steps))
        return events

    def _load(self, worker: int) -> Event:
        answer = self.loads(worker, self._alive[worker])
        if isinstance(answer, Loaded):
            return Ready(worker, answer)
        self.stop(worker)
        return Died(worker, "out of luck") if answer is None else Refused(worker, answer, 1)

    def _step(self, worker: int, steps: deque[list[ImageTask]]) -> Event:
        if not steps:
            self._steps[worker] = None
            return Finished(worker)
        tasks = steps.popleft()
        self.on_batch(worker, tasks)
        if any(task.image_id in self.deadly for task in tasks):
            self.stop(worker)
            return Died(worker, "exit code 139", self.cause)
        unmapped = {"unicorn": len(tasks)}
        return Batch(worker, Labelled(tuple(map(row_of, tasks)), unmapped, self.reduced))

    def stop(self, worker: int) -> None:
        self._alive.pop(worker, None)
        self._steps.pop(worker, None)

    def close(self) -> None:
        self.closed = True


def row_of(task: ImageTask) -> ImageRow:
    boxes = Boxes(
        np.array([[1, 2, 30, 40]]), np.array([0.5]), np.array([1]), task.width, task.height
    )
    size = (task.width, task.height)
    return ImageRow(task.image_id, task.file_name, *size, boxes, seconds=0.5, split=task.split)


@dataclass
class HungPool(FakePool):
    """Some images keep their worker busy for ever; every poll takes a second of a faked clock."""

    endless: set[int] = field(default_factory=set)
    now: float = 0.0

    def poll(self, timeout: float) -> list[Event]:
        self.now += 1.0
        return super().poll(timeout)

    def _step(self, worker: int, steps: deque[list[ImageTask]]) -> Event:
        if steps and any(task.image_id in self.endless for task in steps[0]):
            # to nobody: the service ignores what comes of workers that it does not have
            return Finished(-1)
        return super()._step(worker, steps)


@dataclass
class Bench:
    """A data set of 20 images in units of 5, its store, and what was said."""

    dataset: Dataset
    store: BoxStore
    model: str
    console: Console

    def job(self, name: str = "tiny", keys: str = "", **options: Any) -> Job:
        spec = parse_teacher(f"{name}=onnx:{self.model},format=boxes{keys}")
        return prepare(self.store, self.dataset, spec, options.pop("unit_size", 5), **options)

    def run(
        self, pool: FakePool, *jobs: Job, clock: Callable[[], float] | None = None, **options: Any
    ) -> str:
        if clock is None:
            clock = (lambda: pool.now) if isinstance(pool, HungPool) else time.monotonic
        reporter = PlainReporter(self.console)
        try:
            with self.console.capture() as capture, reporter:
                Service(self.store, self.dataset, pool, reporter, clock, **options).run(jobs)
        finally:
            assert pool.closed
        return capture.get()

    def statuses(self, name: str = "tiny") -> dict[int, str]:
        rows = read_images(self.store, name).to_pylist()
        found = {row["image_id"]: row["status"] for row in rows}
        assert len(found) == len(rows)
        return found


@pytest.fixture
def bench(make_folder, tmp_path) -> Bench:
    dataset = load_dataset(make_folder(20), ["train"], None, None)
    store = BoxStore.create(tmp_path / "store", dataset.categories, dataset.info)
    model = tmp_path / "tiny.onnx"
    model.write_bytes(WEIGHTS)
    return Bench(dataset, store, str(model), Console(width=200))
