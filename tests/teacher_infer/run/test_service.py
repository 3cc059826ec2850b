"""The run: what becomes of units when workers die, teachers fail, disks fill and users stop."""

import errno
import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console

from box_store.boxes import Boxes
from box_store.errors import FingerprintMismatch, StoreError
from box_store.places import files
from box_store.store.reader import boxes_of, read_boxes, read_images
from box_store.store.records import ImageRow
from box_store.store.store import BoxStore
from teacher_infer.commands.report import print_run, run_row
from teacher_infer.data.dataset import Dataset, load_dataset
from teacher_infer.data.images import ImageError, ImageTask
from teacher_infer.run import service
from teacher_infer.run.job import Job
from teacher_infer.run.prepare import prepare, probe
from teacher_infer.run.progress import PlainReporter
from teacher_infer.run.service import Interrupted, Service
from teacher_infer.run.store_watch import StoreWatch
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.spec import TeacherSpec, parse_teacher
from teacher_infer.workers.pool import Batch, Cause, Died, Event, Finished, Ready, Refused, Started
from teacher_infer.workers.worker import Labelled, Loaded, failed_row

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
    return ImageRow(task.image_id, task.file_name, task.width, task.height, boxes, seconds=0.5)


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


def test_every_image_is_stored_once(bench):
    pool, job = FakePool(), bench.job(keys=",workers=2")
    said = bench.run(pool, job)
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert bench.store.units_done("tiny") == {0, 1, 2, 3}
    assert pool.started == ["tiny", "tiny"]
    assert (job.n_labelled, job.n_boxes, job.error) == (20, 20, "")
    assert job.unmapped == {"unicorn": 20}
    assert "2 of 3 teacher classes map to the data set; left out: unicorn" in said
    assert "tiny: 20/20 images, done" in said
    boxes = boxes_of(bench.store, "tiny", 7)
    assert boxes is not None
    assert boxes.boxes_xyxy.tolist() == [[1, 2, 30, 40]]


def test_the_record_says_where_the_boxes_come_from(bench):
    bench.run(FakePool(), bench.job(keys=",score_floor=0.2"))
    record = bench.store.record("tiny")
    assert (record.adapter, record.model, record.licence) == ("onnx", "tiny.onnx", "MIT")
    assert record.weights_sha256 == LOADED.weights_sha256
    assert record.class_map == {"person": 1, "unicorn": None, "car": 3}
    assert record.options == {
        "score_floor": 0.2,
        "nms_iou": None,
        "top_k": 100,
        "format": "boxes",
    }
    assert (record.n_images, record.unit_size, record.n_units) == (20, 5, 4)
    assert record.versions == {"fake": "1"}


def test_no_more_workers_than_units_and_no_unit_twice_at_a_time(bench):
    pool = FakePool(capacity=50)
    bench.run(pool, bench.job(keys=",workers=30"))
    assert len(pool.started) == 4
    assert sorted(image for _, images, _ in pool.handed for image in images) == list(range(1, 21))


def test_teachers_take_turns_where_there_is_room_for_one(bench):
    pool = FakePool(capacity=1)
    bench.run(pool, bench.job("one"), bench.job("two"))
    assert pool.started == ["one", "two"]
    assert bench.statuses("one") == bench.statuses("two")


def test_a_dead_worker_is_replaced_and_its_unit_redone(bench):
    deaths = iter([True])

    def die_once(worker, tasks):
        pool.deadly = {13} if 13 in {t.image_id for t in tasks} and next(deaths, False) else set()

    pool = FakePool(on_batch=die_once)
    job = bench.job()
    said = bench.run(pool, job)
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert len(pool.started) == 2
    # the rows that had arrived are kept, the rest is done one by one
    assert pool.handed[3:] == [
        (1, (13, 14, 15), True),
        (1, (16, 17, 18, 19, 20), False),
    ]
    assert "a worker died (exit code 139); another redoes unit 2" in said
    assert job.exit_code == 0


def test_an_image_that_kills_every_worker_is_found_and_recorded(bench):
    pool = FakePool(deadly={8})
    said = bench.run(pool, bench.job())
    statuses = bench.statuses()
    assert {image for image, status in statuses.items() if status != "ok"} == {8}
    assert statuses[8] == "worker_died"
    # once in a batch, twice alone
    assert len(pool.started) == 4
    assert "image 8 (000008.jpg): this image alone killed its worker twice" in said


def test_a_unit_that_is_past_hope_is_given_up_and_the_rest_is_done(bench):
    pool = FakePool(deadly=set(range(6, 11)))
    job = bench.job()
    said = bench.run(pool, job)
    assert set(job.failed_units) == {1}
    assert bench.store.units_done("tiny") == {0, 2, 3}
    assert "unit 1 is given up" in said
    assert "incomplete" in said
    # and can be taken up again
    bench.run(FakePool(), bench.job())
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")


def test_a_unit_whose_last_image_is_deadly_needs_no_further_worker(bench):
    pool = FakePool(deadly={20})
    bench.run(pool, bench.job())
    assert bench.statuses()[20] == "worker_died"
    assert len(pool.started) == 3


def test_a_worker_that_never_starts_fails_its_teacher_alone(bench):
    pool = FakePool(loads=lambda n, spec: None if spec.name == "dead" else LOADED)
    dead, alive = bench.job("dead"), bench.job("alive")
    bench.run(pool, dead, alive)
    assert "died 3 times while starting: out of luck" in dead.error
    assert dead.exit_code == 1
    assert pool.started.count("dead") == 3
    assert len(bench.statuses("alive")) == 20


def test_a_teacher_that_cannot_be_loaded_fails_alone_and_at_once(bench):
    pool = FakePool(loads=lambda n, spec: "no such weights" if spec.name == "dead" else LOADED)
    dead, alive = bench.job("dead", ",workers=2"), bench.job("alive")
    bench.run(pool, dead, alive)
    assert dead.error == "no such weights"
    assert "dead" not in bench.store.teachers
    assert len(bench.statuses("alive")) == 20


def test_a_teacher_that_knows_nothing_of_the_data_set(bench):
    stranger = Loaded(("unicorn", "yeti"), "MIT", {}, "", "cpu")
    job = bench.job()
    bench.run(FakePool(loads=lambda n, spec: stranger), job)
    assert "none of its 2 classes (unicorn, yeti, ...)" in job.error
    assert "map.CLASS=CATEGORY" in job.error
    assert bench.store.teachers == {}


def test_machines_that_hold_different_models(bench):
    other = replace(LOADED, class_names=("person", "car", "unicorn"), host="node-2")
    job = bench.job(keys=",workers=2")
    bench.run(FakePool(loads=lambda n, spec: other if n else LOADED), job)
    assert "two workers loaded different models" in job.error
    assert "(on node-2)" in job.error


@pytest.mark.parametrize("bad", [0, 1])
def test_a_machine_whose_copy_of_the_weights_is_damaged_is_refused_by_name(bench, bad):
    damaged = replace(LOADED, weights_sha256="cd" * 32, host="node-2")
    job = bench.job(keys=",workers=2")
    bench.run(FakePool(loads=lambda n, spec: damaged if n == bad else LOADED), job)
    assert "a worker loaded other weights" in job.error
    assert "(on node-2): expected sha256 " + LOADED.weights_sha256[:12] in job.error
    assert "got cdcdcdcdcdcd" in job.error
    assert bad or "tiny" not in bench.store.teachers


def test_weights_that_changed_since_the_first_run_are_refused_before_a_worker_starts(bench):
    bench.run(FakePool(), bench.job())
    Path(bench.model).write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(FingerprintMismatch, match="weights_sha256"):
        bench.job()


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


def test_an_image_on_which_the_model_hangs_is_found_and_recorded(bench):
    pool, job = HungPool(endless={8}), bench.job(keys=",batch_timeout=10,workers=2")
    said = bench.run(pool, job)
    statuses = bench.statuses()
    assert {image: status for image, status in statuses.items() if status != "ok"} == {
        8: "timed_out"
    }
    rows = read_images(bench.store, "tiny").to_pylist()
    assert "no answer for 11 s" in next(row["error"] for row in rows if row["image_id"] == 8)
    assert "a worker died (no answer for 11 s); another redoes unit 1" in said
    assert (job.lost, job.exit_code) == ({Cause.HUNG: 3}, 0)
    assert job.batch_size == job.spec.batch_size


@dataclass
class StuckPool(HungPool):
    """Some workers never finish loading; `queued` of them never even begin."""

    stuck: Callable[[int], bool] = lambda worker: True
    queued: bool = False

    def _load(self, worker: int) -> Event:
        if not self.stuck(worker):
            return super()._load(worker)
        return Finished(-1) if self.queued else Started(worker)


def test_a_model_that_is_never_loaded_fails_its_teacher_and_no_other(bench):
    pool = StuckPool(stuck=lambda worker: pool.started[worker] == "dead")
    dead, alive = bench.job("dead", ",load_timeout=10"), bench.job("alive")
    bench.run(pool, dead, alive, clock=lambda: pool.now)
    assert "teacher dead: loading took longer than 10 s: see whether the disk" in dead.error
    assert (dead.exit_code, dead.lost, pool.started.count("dead")) == (1, {Cause.HUNG: 1}, 1)
    assert len(bench.statuses("alive")) == 20


def test_where_others_have_loaded_a_worker_stuck_in_loading_is_replaced(bench):
    pool = StuckPool(stuck=lambda worker: worker == 1, deadly={3})
    job = bench.job(keys=",load_timeout=10")
    said = bench.run(pool, job)
    assert len(bench.statuses()) == 20
    assert job.lost[Cause.HUNG] == 1
    assert job.error == ""
    assert "no answer" not in said  # no unit was lost


def test_waiting_for_a_machine_is_not_loading(bench):
    pool = StuckPool(queued=True)
    job = bench.job(keys=",load_timeout=10")

    def until() -> float:
        if pool.now > 100:
            raise KeyboardInterrupt
        return pool.now

    with pytest.raises(Interrupted):
        bench.run(pool, job, clock=until)
    assert job.error == ""


def test_loading_may_take_ten_minutes_unless_told_otherwise(bench):
    assert bench.job().spec.load_limit_s == 600
    assert bench.job(keys=",load_timeout=none").spec.load_limit_s == float("inf")


def test_the_time_limit_follows_the_batches_seen(bench):
    job = bench.job()
    assert job.timeout_s == 1800
    job.slowest_s = 0.1
    assert job.timeout_s == 120
    job.slowest_s = 60
    assert job.timeout_s == 1800
    assert bench.job(keys=",batch_timeout=7.5").timeout_s == 7.5
    assert bench.job(keys=",batch_timeout=none").timeout_s == float("inf")


def test_a_batch_that_is_slow_but_within_its_time_is_left_alone(bench):
    pool, job = HungPool(endless={8}), bench.job(keys=",batch_timeout=10")
    waited = []

    def release() -> float:
        # the driver asks for the time once a poll
        if pool.handed and pool.handed[-1][1][0] == 6:
            waited.append(pool.now)
            if len(waited) == 8:
                pool.endless = set()
        return pool.now

    bench.run(pool, job, clock=release)
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert len(pool.started) == 1


@dataclass
class SmallMemoryPool(FakePool):
    """Workers that die of batches of more than two images."""

    cause: Cause = Cause.MEMORY

    def submit(self, worker: int, tasks: Sequence[ImageTask], class_map: Any, careful: bool):
        super().submit(worker, tasks, class_map, careful)
        if self._alive[worker].batch_size > 2 and not careful:
            self._steps[worker] = deque([[]])

    def _step(self, worker: int, steps: deque[list[ImageTask]]) -> Event:
        if steps and not steps[0]:
            self.stop(worker)
            return Died(worker, "the machine ran out of memory", self.cause)
        return super()._step(worker, steps)


@pytest.mark.parametrize("cause", [Cause.MEMORY, Cause.CRASH])
def test_workers_that_die_of_large_batches_get_smaller_ones(bench, cause):
    pool, job = SmallMemoryPool(cause=cause), bench.job(keys=",batch_size=4", unit_size=20)
    said = bench.run(pool, job)
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert job.batch_size == 2
    assert "tiny: batches of 2 from now on" in said
    row = run_row(bench.store, job)
    assert (row["batch_size"], row["batch_size_asked"]) == (2, 4)
    assert row["workers_lost"] == {cause.value: job.lost[cause]}
    with bench.console.capture() as capture:
        print_run(bench.console, bench.store, [row])
    assert "tiny: batches of 2: 4 were more than memory holds" in capture.get()


def test_a_worker_whose_gpu_was_full_hands_its_smaller_batch_to_its_successors(bench):
    pool, job = FakePool(reduced=3, deadly={13}), bench.job(keys=",batch_size=6")
    said = bench.run(pool, job)
    assert job.batch_size == 3
    assert "tiny: batches of 3 from now on: more do not fit into memory" in said
    assert pool.batch_sizes[0] == 6
    assert set(pool.batch_sizes[1:]) == {3}


def test_a_machine_that_goes_puts_no_image_under_suspicion(bench):
    pool = FakePool(deadly={8}, cause=Cause.MACHINE)

    def recover(worker, tasks):
        if len(pool.started) == 4:
            pool.deadly = set()

    pool.on_batch = recover
    bench.run(pool, bench.job())
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert not any(careful for _, _, careful in pool.handed)


def test_several_deadly_images_cost_their_unit_nothing_else(bench):
    pool, job = FakePool(deadly={2, 9, 19}), bench.job(keys=",batch_size=2", unit_size=20)
    bench.run(pool, job)
    statuses = bench.statuses()
    assert {image for image, status in statuses.items() if status == "worker_died"} == {2, 9, 19}
    assert list(statuses.values()).count("ok") == 17
    assert job.batch_size == 2


def test_a_store_that_is_unmounted_in_the_middle_is_waited_for(bench, monkeypatch):
    elsewhere = bench.store.path.with_name("elsewhere")
    waits = []

    def unmount(worker, tasks):
        if tasks[0].image_id == 11:
            bench.store.path.rename(elsewhere)

    def mount_again(seconds):
        waits.append(seconds)
        # a driver that made the folder anew would write into the mount point
        assert not bench.store.path.exists()
        if len(waits) == 3:
            elsewhere.rename(bench.store.path)

    monkeypatch.setattr(service, "StoreWatch", partial(StoreWatch, sleep=mount_again))
    said = bench.run(FakePool(on_batch=unmount), bench.job())
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")
    assert len(waits) == 3
    assert "is gone: waiting up to 10:00 for its return" in said
    assert "is back after" in said


def test_workers_are_not_blamed_for_the_time_that_the_store_was_away(bench, monkeypatch):
    elsewhere = bench.store.path.with_name("elsewhere")

    class OneAtATime(HungPool):
        """While the unit of one worker is written, what the other says is not heard."""

        said: ClassVar[deque[Event]] = deque()

        def poll(self, timeout: float) -> list[Event]:
            if not self.said:
                self.said.extend(super().poll(timeout))
            return [self.said.popleft()] if self.said else []

    pool, job = OneAtATime(), bench.job(keys=",batch_timeout=10,workers=2")

    def unmount(worker, tasks):
        if tasks[0].image_id == 5:
            bench.store.path.rename(elsewhere)

    def mount_again(seconds):
        pool.now += 100
        elsewhere.rename(bench.store.path)

    pool.on_batch = unmount
    monkeypatch.setattr(service, "StoreWatch", partial(StoreWatch, sleep=mount_again))
    said = bench.run(pool, job)
    assert "is back after 1:40" in said
    assert not job.lost
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_the_time_of_day_changes_nothing(bench, monkeypatch, jump):
    bench.run(FakePool(), bench.job("one"))
    calls = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + jump * (next(calls) % 3))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    bench.run(FakePool(deadly={8}), bench.job("two"))
    assert bench.statuses("two")[8] == "worker_died"
    left = read_boxes(bench.store, "one").to_pylist()
    right = read_boxes(bench.store, "two").to_pylist()
    assert [row for row in left if row["image_id"] != 8] == right


def test_a_teacher_that_fails_on_everything_stores_nothing(bench, monkeypatch):
    def fail(task):
        return failed_row(task, ImageError("predict_error", "wrong shape", (64, 48)))

    monkeypatch.setitem(globals(), "row_of", fail)
    job = bench.job()
    bench.run(FakePool(), job)
    assert "fails on every image of its first unit (5 images): wrong shape" in job.error
    assert bench.store.units_done("tiny") == set()


def test_what_is_done_is_not_done_again(bench):
    bench.run(FakePool(), bench.job())
    pool, job = FakePool(), bench.job(unit_size=None)
    assert job.finished
    said = bench.run(pool, job)
    assert pool.started == []
    assert "tiny: 20/20 images, done already" in said


def test_a_stopped_run_goes_on_where_it_was(bench):
    def stop(worker, tasks):
        if tasks[0].image_id >= 13:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="tiny: 2 of 4 units are in the store") as caught:
        bench.run(FakePool(on_batch=stop), bench.job())
    assert caught.value.exit_code == 130
    assert "Run the same command again" in str(caught.value)
    # without being told the unit size again
    pool, job = FakePool(), bench.job(unit_size=None)
    assert job.n_before == 10
    bench.run(pool, job)
    assert sorted(image for _, images, _ in pool.handed for image in images) == [*range(11, 21)]
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")


def test_another_configuration_under_the_same_name_is_refused_before_anything_is_loaded(bench):
    bench.run(FakePool(), bench.job())
    with pytest.raises(FingerprintMismatch, match=r"options\.score_floor") as caught:
        bench.job(keys=",score_floor=0.3")
    stored = bench.store.record("tiny").fingerprint[:12]
    assert str(caught.value).count(stored) == 1
    assert "asked for" in str(caught.value)
    with pytest.raises(FingerprintMismatch, match="class_map"):
        bench.job(keys=",map.car=kite")
    with pytest.raises(FingerprintMismatch, match="unit_size"):
        bench.job(unit_size=7)
    with pytest.raises(FingerprintMismatch, match="licence"):
        bench.job(keys=",licence=GPL-3.0")


def test_another_image_list_under_the_same_name_is_refused(bench, make_folder):
    bench.run(FakePool(), bench.job())
    more = load_dataset(make_folder(21, name="more"), ["train"], None, None)
    with pytest.raises(FingerprintMismatch, match="n_images: 20 in the store, 21 asked for"):
        prepare(bench.store, more, bench.job().spec)


def test_units_of_a_faster_run_are_skipped(bench):
    other = bench.job()

    def meanwhile(worker, tasks):
        if tasks[0].image_id == 1:
            # a second run commits units 0 and 2 while the first labels unit 0
            service = Service(bench.store, bench.dataset, FakePool(), PlainReporter(bench.console))
            other.todo = deque(a for a in other.todo if a.unit.index in (0, 2))
            service.run([other])

    pool = FakePool(on_batch=meanwhile)
    with bench.console.capture():
        bench.run(pool, bench.job())
    assert (11, 12, 13, 14, 15) not in [images for _, images, _ in pool.handed]
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")


def test_a_full_disk_ends_the_run_with_a_sentence_and_keeps_what_was_there(bench, monkeypatch):
    write, calls = files.write_temporary, []

    def full(target, data):
        calls.append(target)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(target, data)

    monkeypatch.setattr(files, "write_temporary", full)
    with pytest.raises(StoreError, match=r"disk is full: unit 2 .* 2 units committed before"):
        bench.run(FakePool(), bench.job())
    monkeypatch.setattr(files, "write_temporary", write)
    assert bench.store.units_done("tiny") == {0, 1}
    bench.run(FakePool(), bench.job())
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")


def test_failed_images_can_be_tried_again(bench, monkeypatch):
    original = row_of

    def miss(task):
        error = ImageError("missing_file", "no file")
        return failed_row(task, error) if task.image_id == 7 else original(task)

    monkeypatch.setitem(globals(), "row_of", miss)
    bench.run(FakePool(), bench.job())
    assert bench.statuses()[7] == "missing_file"
    monkeypatch.setitem(globals(), "row_of", original)
    assert bench.job().finished
    pool = FakePool()
    bench.run(pool, bench.job(redo_bad=True))
    assert pool.handed == [(0, (6, 7, 8, 9, 10), False)]
    assert bench.statuses() == dict.fromkeys(range(1, 21), "ok")


def test_redoing_bad_images_loses_nothing_when_it_is_interrupted(bench, monkeypatch):
    original = row_of

    def miss(task):
        error = ImageError("missing_file", "no file")
        return failed_row(task, error) if task.image_id == 7 else original(task)

    monkeypatch.setitem(globals(), "row_of", miss)
    bench.run(FakePool(), bench.job())

    def stop(worker, tasks):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        bench.run(FakePool(on_batch=stop), bench.job(redo_bad=True))
    assert len(bench.statuses()) == 20


def test_a_probe_loads_a_teacher_and_lets_it_go(bench):
    pool = FakePool()
    assert probe(pool, bench.job().spec) == LOADED
    assert pool.closed
    with pytest.raises(Exception, match="tiny: no such weights"):
        probe(FakePool(loads=lambda n, spec: "no such weights"), bench.job().spec)
    with pytest.raises(Exception, match="tiny cannot be loaded: out of luck"):
        probe(FakePool(loads=lambda n, spec: None), bench.job().spec)
