"""One teacher of a run: its units, its workers, and what came of them."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace

from box_store.store.reader import read_images
from box_store.store.records import ImageRow, TeacherRecord
from box_store.store.store import BoxStore
from teacher_infer.run.attempt import Attempt
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers.pool import Cause
from teacher_infer.workers.worker import SUSPECT_BATCHES, Labelled, Loaded

# a batch may take so long before any has been seen: kernels are compiled and tuned in the first
_FIRST_BATCH_S = 1800.0
# and afterwards so many times the slowest so far, but never less than this
_TIMES_SLOWEST, _LEAST_TIMEOUT_S = 30.0, 120.0
# units' deaths in batches, of which no image alone dies, before batches are made smaller
_MAX_UNEXPLAINED = 2


@dataclass
class Job:
    """One teacher of a run.

    record and class_map are None until the teacher is known: from the store, or from its first
    worker. weights_sha256: of the files as the driver sees them, "" where there are none. n_before:
    images in the store when the run began. redo: units to replace, as they hold bad images.
    batch_size: images a call, less than asked for once that did not fit into memory. slowest_s: of
    the batches so far. lowest_class: of the teacher's own class indices so far. lost: workers that
    died, by cause.
    """

    spec: TeacherSpec
    unit_size: int
    n_images: int
    todo: deque[Attempt]
    weights_sha256: str = ""
    n_before: int = 0
    record: TeacherRecord | None = None
    class_map: ClassMap | None = None
    redo: set[int] = field(default_factory=set)
    loaded: Loaded | None = None
    running: dict[int, Attempt | None] = field(default_factory=dict)
    start_deaths: int = 0
    batch_size: int = 0
    slowest_s: float | None = None
    lost: Counter[Cause] = field(default_factory=Counter)
    error: str = ""
    exit_code: int = 0
    failed_units: dict[int, str] = field(default_factory=dict)
    n_labelled: int = 0
    n_boxes: int = 0
    n_committed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)
    lowest_class: int | None = None
    started: float | None = None
    ended: float = 0.0

    def __post_init__(self) -> None:
        self.batch_size = self.batch_size or self.spec.batch_size

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.spec.name

    @property
    def loaded_classes(self) -> tuple[str, ...]:
        """The teacher's own classes, once it is loaded."""
        return self.loaded.class_names if self.loaded is not None else ()

    @property
    def misses_first_class(self) -> bool:
        """Whether labels of a file that doesn't say so may count from 1: some were 1, none 0."""
        may_be = self.spec.options.get("format") == "boxes" and self.lowest_class == 1
        return may_be and "first_label" not in self.spec.options

    @property
    def n_units_open(self) -> int:
        """Units waiting or in work."""
        return len(self.todo) + sum(attempt is not None for attempt in self.running.values())

    @property
    def finished(self) -> bool:
        """Nothing waits and nothing is in work."""
        return bool(self.error) or self.n_units_open == 0

    @property
    def wants_worker(self) -> bool:
        """Another worker would have something to do."""
        if self.finished:
            return False
        return len(self.running) < min(self.spec.workers, self.n_units_open)

    def take(self, attempt: Attempt, labelled: Labelled) -> tuple[int, int]:
        """Keep the rows of a batch; returns how many there are and how many are bad."""
        attempt.take(labelled.rows)
        self.unmapped.update(labelled.unmapped)
        lowest = [one for one in (self.lowest_class, labelled.lowest_class) if one is not None]
        self.lowest_class = min(lowest, default=None)
        return len(labelled.rows), sum(row.status != "ok" for row in labelled.rows)

    @property
    def worker_spec(self) -> TeacherSpec:
        """What a new worker is given: the teacher, with the batches that are known to fit."""
        return replace(self.spec, batch_size=self.batch_size)

    @property
    def suspects(self) -> int:
        """Images that a worker which dies may have had in its hands."""
        return SUSPECT_BATCHES * self.spec.batch_size

    @property
    def timeout_s(self) -> float:
        """Seconds without an answer after which a worker counts as hung."""
        if self.spec.batch_timeout is not None:
            return self.spec.batch_timeout
        if self.slowest_s is None:
            return _FIRST_BATCH_S
        return max(_LEAST_TIMEOUT_S, _TIMES_SLOWEST * self.slowest_s)

    def reduce_batch(self, size: int) -> bool:
        """Batches are at most so large from now on; whether that is news."""
        size = max(1, size)
        if size >= self.batch_size:
            return False
        self.batch_size = size
        return True

    def unexplained(self, attempt: Attempt) -> bool:
        """Whether workers die over batches of this unit that hold no image which kills alone."""
        return attempt.unexplained >= _MAX_UNEXPLAINED

    @property
    def images_per_s(self) -> float | None:
        """Of this run, from the first unit handed out to the last one stored; None without any."""
        if self.started is None or self.ended <= self.started:
            return None
        return self.n_labelled / (self.ended - self.started)

    def begin(self) -> None:
        """The first unit is handed out."""
        if self.started is None:
            self.started = time.monotonic()

    def count(self, rows: list[ImageRow]) -> None:
        """Rows that are in the store now."""
        self.ended = time.monotonic()
        self.n_labelled += len(rows)
        self.n_committed += 1
        self.n_boxes += sum(len(row.boxes) for row in rows if row.boxes is not None)
        self.statuses.update(row.status for row in rows)


def statuses_in(store: BoxStore, teacher: str) -> set[str]:
    """The statuses of a teacher's images in the store."""
    return set(read_images(store, teacher, ["status"]).to_pydict()["status"])


def committed(store: BoxStore, job: Job) -> set[int]:
    """Units in the store, by this run or any other; empty for a teacher it does not know."""
    return store.units_done(job.name) if job.record is not None else set()
