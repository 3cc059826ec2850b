"""One teacher of a run: its units, its workers, and what came of them."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from box_store.records import ImageRow, TeacherRecord
from box_store.store import BoxStore
from teacher_infer.actor import Labelled, Loaded, failed_row
from teacher_infer.class_map import ClassMap
from teacher_infer.images import ImageError, ImageTask
from teacher_infer.plan import Unit
from teacher_infer.spec import TeacherSpec

# status of an image that killed its worker whenever it was tried alone
WORKER_DIED = "worker_died"

_MAX_UNIT_DEATHS = 6
_MAX_IMAGE_DEATHS = 2


@dataclass
class Attempt:
    """A unit on its way: the rows that arrived so far, and the workers that died over it.

    Rows survive their worker. After a death the rest is done one image at a time, so that an image
    that kills whoever touches it is found, recorded, and costs the unit nothing else.
    """

    unit: Unit
    rows: dict[int, ImageRow] = field(default_factory=dict)
    deaths: int = 0
    suspects: Counter[int] = field(default_factory=Counter)

    @property
    def careful(self) -> bool:
        """One image at a time from now on."""
        return self.deaths > 0

    @property
    def remaining(self) -> tuple[ImageTask, ...]:
        """Images without a row."""
        return tuple(task for task in self.unit.tasks if task.image_id not in self.rows)

    @property
    def hopeless(self) -> bool:
        """Too many workers died over this unit."""
        return self.deaths >= _MAX_UNIT_DEATHS

    def died(self, reason: str) -> ImageRow | None:
        """A worker died over this unit; the row of the image to blame, once certain."""
        alone = self.careful
        self.deaths += 1
        if not alone or not self.remaining:
            return None
        task = self.remaining[0]
        self.suspects[task.image_id] += 1
        if self.suspects[task.image_id] < _MAX_IMAGE_DEATHS:
            return None
        error = ImageError(WORKER_DIED, f"this image alone killed its worker twice: {reason}")
        self.rows[task.image_id] = row = failed_row(task, error)
        return row


@dataclass
class Job:
    """One teacher of a run.

    record and class_map are None until the teacher is known: from the store, or from its first
    worker. n_before: images in the store when the run began. redo: units to replace, as they hold
    bad images.
    """

    spec: TeacherSpec
    unit_size: int
    n_images: int
    todo: deque[Attempt]
    n_before: int = 0
    record: TeacherRecord | None = None
    class_map: ClassMap | None = None
    redo: set[int] = field(default_factory=set)
    loaded: Loaded | None = None
    running: dict[int, Attempt | None] = field(default_factory=dict)
    start_deaths: int = 0
    error: str = ""
    exit_code: int = 0
    failed_units: dict[int, str] = field(default_factory=dict)
    n_labelled: int = 0
    n_boxes: int = 0
    n_committed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)
    started: float | None = None
    ended: float = 0.0

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.spec.name

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
        for row in labelled.rows:
            attempt.rows[row.image_id] = row
        self.unmapped.update(labelled.unmapped)
        return len(labelled.rows), sum(row.status != "ok" for row in labelled.rows)

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


def committed(store: BoxStore, job: Job) -> set[int]:
    """Units in the store, by this run or any other; empty for a teacher it does not know."""
    return store.units_done(job.name) if job.record is not None else set()
