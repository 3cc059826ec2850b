"""The run: units to workers as these fall free, rows to the store, and the dead replaced.

One loop, in the driver, over the events of a `WorkerPool`. The driver alone writes, a unit at a
time, and the store commits a unit exactly once, whoever else writes the same one. What is in flight
is one unit a worker; what a crash of anything loses is that.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from box_store.errors import StoreError, TeachDetrError
from box_store.places.lease import TakenOver, hold
from box_store.store.records import ImageRow, TeacherRecord
from box_store.store.store import BoxStore
from teacher_infer.data.dataset import Dataset
from teacher_infer.run.attempt import Attempt
from teacher_infer.run.deadline import too_slow
from teacher_infer.run.introduction import introduce
from teacher_infer.run.job import Job, committed, statuses_in
from teacher_infer.run.progress import Reporter
from teacher_infer.run.store_watch import StoreWatch
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.workers.pool import (
    Batch,
    Cause,
    Died,
    Event,
    Finished,
    Ready,
    Refused,
    Started,
    WorkerPool,
)
from teacher_infer.workers.worker import PREDICT_ERROR, Labelled, Loaded

_POLL_S = 0.2
_MAX_START_DEATHS = 3
# images that are not all bad by chance
_MANY = 64


class Interrupted(TeachDetrError):
    """The run was stopped from outside. What was committed stays, and the same command goes on."""

    exit_code = 130


class Service:
    """Runs jobs to their end on a pool of workers.

    clock: seconds, of this machine alone: nothing is ever compared with another machine's.
    """

    def __init__(
        self,
        store: BoxStore,
        dataset: Dataset,
        pool: WorkerPool,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._dataset = dataset
        self._pool = pool
        self._reporter = reporter
        self._watch = StoreWatch(store, reporter.note, clock=clock)
        self._owners: dict[int, Job] = {}
        self._clock = clock
        # when each worker that loads or has a unit last gave a sign of life
        self._heard: dict[int, float] = {}

    def run(self, jobs: Sequence[Job], *, takeover: bool = False) -> None:
        """Label what the jobs have left; their counters and errors say what came of it.

        A teacher that fails does not stop the others. `takeover`: take a store at a URL from
        another driver, which stops if it lives.

        Raises:
            StoreError: the store cannot be written (a full disk), went away and stayed away, or
                lies at a URL and another driver is at work on it, or (TakenOver) took it.
            Interrupted: Ctrl-C.
        """
        for job in jobs:
            self._reporter.teacher(job.name, job.n_images, job.n_before)
            if job.finished:
                self._reporter.state(job.name, "done already")
        try:
            with hold(self._store.path, takeover=takeover) as self._lease:
                while not all(job.finished for job in jobs):
                    self._turn(jobs)
        except KeyboardInterrupt as error:
            raise Interrupted(_farewell(self._store, jobs)) from error
        finally:
            self._pool.close()

    def _turn(self, jobs: Sequence[Job]) -> None:
        """Once around the loop: start what there is room for, then hear what the workers say."""
        self._lease.keep()
        for job in jobs:
            while job.wants_worker and self._start(job):
                pass
        for event in self._pool.poll(_POLL_S):
            # a worker that was stopped a moment ago may still have had something to say
            if event.worker in self._owners:
                self._handle(event, self._owners[event.worker])
        self._end_hung()

    def _start(self, job: Job) -> bool:
        try:
            worker = self._pool.start(job.worker_spec)
        except TeachDetrError as error:
            self._fail(job, str(error), error.exit_code)
            return False
        if worker is None:
            return False
        self._owners[worker] = job
        job.running[worker] = None
        if job.loaded is None:
            self._reporter.state(job.name, "loading")
        return True

    def _handle(self, event: Event, job: Job) -> None:
        match event:
            case Started(worker):
                self._heard[worker] = self._now()
            case Ready(worker, loaded):
                self._ready(job, worker, loaded)
            case Batch(worker, labelled):
                if (attempt := job.running[worker]) is not None:
                    self._take(job, worker, attempt, labelled)
            case Finished(worker):
                if (attempt := job.running[worker]) is not None:
                    self._finish(job, worker, attempt)
            case Refused(worker, message, exit_code):
                self._forget(job, worker)
                self._fail(job, message, exit_code)
            case Died(worker, reason, cause):
                self._replace(job, worker, reason, cause)

    def _take(self, job: Job, worker: int, attempt: Attempt, labelled: Labelled) -> None:
        now = self._now()
        job.slowest_s = max(job.slowest_s or 0.0, now - self._heard[worker])
        self._heard[worker] = now
        self._reporter.advance(job.name, *job.take(attempt, labelled))
        if labelled.batch_size is not None:
            self._reduce_batch(job, labelled.batch_size, "more do not fit into memory")
        if job.unexplained(attempt):
            attempt.unexplained = 0
            why = "workers died over larger ones, and no image alone is to blame"
            self._reduce_batch(job, job.batch_size // 2, why)

    def _reduce_batch(self, job: Job, size: int, why: str) -> None:
        if job.reduce_batch(size):
            self._reporter.note(f"{job.name}: batches of {job.batch_size} from now on: {why}")

    def _finish(self, job: Job, worker: int, attempt: Attempt) -> None:
        """A worker has done what it was handed: of the unit, or of those under suspicion in it."""
        if attempt.remaining:
            self._hand(job, worker, attempt)
            return
        job.running[worker] = None
        self._commit(job, attempt)
        self._assign(job, worker)

    def _now(self) -> float:
        """The clock, which stands still while the store is waited for: nobody is heard then."""
        return self._clock() - self._watch.blocked_s

    def _end_hung(self) -> None:
        """Kill workers that have given no sign of life for too long."""
        now = self._now()
        for worker, job in list(self._owners.items()):
            silent_s = now - self._heard.get(worker, now)
            is_loading = job.running[worker] is None
            if silent_s <= (job.spec.load_limit_s if is_loading else job.timeout_s):
                continue
            self._pool.stop(worker)
            if is_loading and job.loaded is None:
                # nothing says that another worker would fare better, and each takes as long
                job.lost[Cause.HUNG] += 1
                self._fail(job, str(too_slow(job.spec, "loading")), 1)
            else:
                doing = " while loading" if is_loading else ""
                self._replace(job, worker, f"no answer for {silent_s:.0f} s{doing}", Cause.HUNG)

    def _ready(self, job: Job, worker: int, loaded: Loaded) -> None:
        job.start_deaths = 0
        try:
            note = introduce(job, loaded, self._dataset, self._register)
        except TakenOver:
            raise
        except TeachDetrError as error:
            self._fail(job, str(error), error.exit_code)
            return
        if note:
            self._reporter.note(note)
        self._reporter.state(job.name, "labelling")
        self._assign(job, worker)

    def _register(self, record: TeacherRecord) -> TeacherRecord:
        def checked() -> TeacherRecord:
            self._lease.check()
            return self._store.register(record)

        return self._watch.patiently(checked)

    def _assign(self, job: Job, worker: int) -> None:
        """Hand the next unit to a free worker, or release it when there is none."""
        done = self._watch.patiently(lambda: committed(self._store, job)) - job.redo
        while job.todo and not job.error:
            attempt = job.todo.popleft()
            if attempt.unit.index in done:
                # another run that writes this store was faster
                self._reporter.advance(job.name, len(attempt.remaining), 0)
                continue
            job.begin()
            job.running[worker] = attempt
            self._hand(job, worker, attempt)
            return
        self._pool.stop(worker)
        self._forget(job, worker)
        self._conclude(job)

    def _hand(self, job: Job, worker: int, attempt: Attempt) -> None:
        class_map = job.class_map or ClassMap.build((), self._dataset.categories)
        self._heard[worker] = self._now()
        self._pool.submit(worker, attempt.portion, class_map, attempt.careful)

    def _write(self, job: Job, index: int, rows: list[ImageRow]) -> bool:
        self._lease.check()
        return self._store.write_unit(job.name, index, rows, replace=index in job.redo)

    def _commit(self, job: Job, attempt: Attempt) -> None:
        """Write a unit whose images all have a row."""
        rows = list(attempt.rows.values())
        if wrong := _all_failed(job, rows) or _none_usable(self._store, job, rows):
            self._fail(job, wrong, 1)
            return
        index = attempt.unit.index
        try:
            self._watch.patiently(lambda: self._write(job, index, rows))
        except StoreError as error:
            if isinstance(error, TakenOver) or isinstance(error.__cause__, OSError):
                raise
            self._fail(job, str(error), error.exit_code)
            return
        job.redo.discard(index)
        job.count(rows)

    def _replace(self, job: Job, worker: int, reason: str, cause: Cause) -> None:
        """A worker died: its unit goes back to the front of the queue, unless it is past hope."""
        attempt = self._forget(job, worker)
        job.lost[cause] += 1
        if attempt is None:
            job.start_deaths += 1
            if job.start_deaths >= _MAX_START_DEATHS:
                message = f"its worker died {job.start_deaths} times while starting: {reason}"
                self._fail(job, f"teacher {job.name}: {message}", 1)
            return
        if cause is Cause.MEMORY and not attempt.careful:
            self._reduce_batch(job, job.batch_size // 2, reason)
        if row := attempt.died(cause, reason, job.suspects):
            self._reporter.advance(job.name, 1, 1)
            self._reporter.note(f"{job.name}: image {row.image_id} ({row.file_name}): {row.error}")
        unit = f"unit {attempt.unit.index}"
        if not attempt.remaining:
            self._commit(job, attempt)
            self._conclude(job)
        elif attempt.hopeless:
            job.failed_units[attempt.unit.index] = reason
            text = f"{unit} is given up: {attempt.all_deaths} workers died over it"
            self._reporter.note(f"{job.name}: {text}")
            self._conclude(job)
        else:
            job.todo.appendleft(attempt)
            text = f"a worker died ({reason}); another redoes {unit}"
            self._reporter.note(f"{job.name}: {text}")

    def _fail(self, job: Job, message: str, exit_code: int) -> None:
        job.error, job.exit_code = message, exit_code
        for worker in list(job.running):
            self._pool.stop(worker)
            self._forget(job, worker)
        self._reporter.state(job.name, "failed")

    def _conclude(self, job: Job) -> None:
        if job.finished and not job.error:
            if job.misses_first_class:
                self._reporter.note(
                    f"{job.name}: no box had the label 0 ({job.loaded_classes[0]}). If the labels "
                    "of this model count from 1, all its classes are one off: say first_label=1"
                )
            self._reporter.state(job.name, "incomplete" if job.failed_units else "done")

    def _forget(self, job: Job, worker: int) -> Attempt | None:
        self._owners.pop(worker, None)
        self._heard.pop(worker, None)
        return job.running.pop(worker, None)


def _all_failed(job: Job, rows: list[ImageRow]) -> str:
    """A sentence when a teacher fails on whatever it is shown: then it's no bad image, and nothing
    should be stored that a later run would take for done."""
    statuses = {row.status for row in rows}
    if "ok" in statuses or PREDICT_ERROR not in statuses or job.statuses["ok"] or job.n_before:
        return ""
    example = next(row.error for row in rows if row.status == PREDICT_ERROR)
    return (
        f"teacher {job.name} fails on every image of its first unit ({len(rows)} images): "
        f"{example}. Nothing is stored"
    )


def _none_usable(store: BoxStore, job: Job, rows: list[ImageRow]) -> str:
    """A sentence when no image can be used, whatever the teacher: many of them, or all there are.

    Few may be bad by chance, so units before the last are stored as long as there are few.
    """
    if job.statuses["ok"] or any(row.status == "ok" for row in rows):
        return ""
    statuses = job.statuses + Counter(row.status for row in rows)
    if statuses.total() < _MANY and job.n_units_open:
        return ""
    if job.n_before and "ok" in statuses_in(store, job.name):
        return ""
    listed = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    return (
        f"teacher {job.name}: not one image could be used ({listed}), the last because "
        f"{rows[-1].error}. Its last unit is not stored: mend the data set, then run the same "
        "command again, with --redo-bad for images that are in the store already"
    )


def _farewell(store: BoxStore, jobs: Sequence[Job]) -> str:
    lines = []
    for job in jobs:
        n_done = 0
        # whatever is wrong with the store now, the user asked to stop
        with suppress(TeachDetrError):
            n_done = len(committed(store, job))
        n_units = -(-job.n_images // job.unit_size)
        lines.append(f"  {job.name}: {n_done} of {n_units} units are in the store")
    return "stopped. Run the same command again to go on.\n" + "\n".join(lines)
