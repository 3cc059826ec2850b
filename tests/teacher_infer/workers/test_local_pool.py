"""Workers without Ray, in this process and in a child of it."""

import os
import signal
import time
from dataclasses import replace

import pytest

from teacher_infer.data.dataset import Dataset, load_dataset
from teacher_infer.teachers.class_map import ClassMap
from teacher_infer.teachers.parsing import parse_teacher
from teacher_infer.teachers.spec import TeacherSpec
from teacher_infer.workers import local_pool
from teacher_infer.workers.local_pool import LocalPool
from teacher_infer.workers.pool import (
    Batch,
    Died,
    Event,
    Finished,
    Ready,
    Refused,
    Started,
    thread_environment,
    thread_limit,
)


@pytest.fixture
def dataset(make_folder) -> Dataset:
    return load_dataset(make_folder(10), ["train"], None, None)


@pytest.fixture
def spec(teacher: str) -> TeacherSpec:
    return parse_teacher(f"tiny={teacher},batch_size=4,threads=1")


def next_event(pool: LocalPool) -> Event:
    """The next event, other than that a child is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for event in pool.poll(0.1):
            if not isinstance(event, Started):
                return event
    raise TimeoutError


def label(pool: LocalPool, spec: TeacherSpec, dataset: Dataset) -> list[Event]:
    worker = pool.start(spec)
    assert worker is not None
    ready = next_event(pool)
    assert isinstance(ready, Ready)
    class_map = ClassMap.build(ready.loaded.class_names, dataset.categories, None)
    pool.submit(worker, dataset.tasks, class_map, False)
    events: list[Event] = []
    while not events or isinstance(events[-1], Batch):
        events.append(next_event(pool))
    return events


@pytest.mark.parametrize("isolate", [False, True], ids=["in-process", "child"])
def test_a_unit_comes_back_in_batches(dataset, spec, isolate):
    pool = LocalPool(isolate=isolate)
    try:
        *batches, last = label(pool, spec, dataset)
    finally:
        pool.close()
    rows = [row for batch in batches if isinstance(batch, Batch) for row in batch.labelled.rows]
    assert [row.image_id for row in rows] == dataset.image_ids
    assert [len(batch.labelled.rows) for batch in batches if isinstance(batch, Batch)] == [4, 4, 2]
    assert isinstance(last, Finished)
    assert rows[0].boxes is not None
    # the detector's box 4..20 of 32 px, in an image of 64 x 48; its score is the brightness
    assert rows[0].boxes.boxes_xyxy.tolist() == [[8, 6, 40, 30]]
    assert rows[0].boxes.scores[0] == pytest.approx(37 / 255, abs=0.02)


def test_there_is_room_for_one_worker_at_a_time(spec):
    pool = LocalPool()
    worker = pool.start(spec)
    assert worker is not None
    assert pool.start(spec) is None
    pool.stop(worker)
    assert pool.start(spec) not in (None, worker)
    pool.close()
    assert pool.poll(0) == []


@pytest.mark.parametrize("isolate", [False, True], ids=["in-process", "child"])
def test_a_teacher_that_cannot_be_loaded(tmp_path, isolate):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    pool = LocalPool(isolate=isolate)
    pool.start(parse_teacher(f"bad=onnx:{tmp_path / 'bad.onnx'},format=boxes"))
    event = next_event(pool)
    assert isinstance(event, Refused)
    assert "bad.onnx" in event.message
    assert pool.poll(0) == []
    pool.close()


@pytest.mark.slow
def test_a_child_that_is_killed_is_reported_dead_and_another_can_follow(dataset, spec):
    pool = LocalPool(isolate=True)
    try:
        worker = pool.start(spec)
        assert isinstance(next_event(pool), Ready)
        process = pool._children[worker or 0]._process
        os.kill(process.pid, signal.SIGKILL)
        class_map = ClassMap.build(("person",), dataset.categories, None)
        pool.submit(worker or 0, dataset.tasks, class_map, False)
        died = next_event(pool)
        assert isinstance(died, Died)
        assert "signal 9" in died.reason
        assert isinstance(label(pool, spec, dataset)[-1], Finished)
    finally:
        pool.close()


@pytest.mark.slow
def test_a_child_does_not_outlive_its_pool(spec):
    pool = LocalPool(isolate=True)
    worker = pool.start(spec)
    assert isinstance(next_event(pool), Ready)
    process = pool._children[worker or 0]._process
    pool.close()
    assert process.poll() is not None


@pytest.mark.slow
def test_several_children_of_one_teacher_work_at_once(dataset, spec):
    two = replace(spec, workers=2, batch_timeout=60.0)
    pool = LocalPool()
    try:
        workers = {pool.start(two), pool.start(two)}
        assert None not in workers
        assert pool.start(two) is None
        assert pool.start(replace(two, name="other")) is None
        ready = [next_event(pool), next_event(pool)]
        assert {event.worker for event in ready if isinstance(event, Ready)} == workers
        pids = {child._process.pid for child in pool._children.values()}
        assert len(pids) == 2
        assert os.getpid() not in pids
    finally:
        pool.close()


def test_agpl_code_always_gets_a_process_of_its_own(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(local_pool, "_Child", made.append)
    LocalPool().start(parse_teacher("yolo=ultralytics:yolo11n.yaml"))
    assert [spec.adapter for spec in made] == ["ultralytics"]


def test_a_limit_on_loading_asks_for_a_process_that_can_be_killed(monkeypatch, spec):
    made = []
    monkeypatch.setattr(local_pool, "_Child", made.append)
    pool = LocalPool()
    assert pool.poll(0) == []
    worker = pool.start(replace(spec, load_timeout=5.0))
    assert len(made) == 1
    assert pool.poll(0) == [Started(worker or 0)]


def test_what_a_framework_prints_does_not_reach_stdout(spec, monkeypatch, capsys):
    load = local_pool.Worker.load

    def chatty(worker):
        print("Downloading the internet ...")
        return load(worker)

    monkeypatch.setattr(local_pool.Worker, "load", chatty)
    pool = LocalPool()
    pool.start(spec)
    assert isinstance(next_event(pool), Ready)
    pool.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Downloading" in captured.err


def test_threads_are_bounded(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_limit(4) == 4
    assert thread_limit(0.5) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert thread_limit(4) == 2
    assert thread_limit(1) == 1
    assert set(thread_environment(3).values()) == {"3"}
    assert "OMP_NUM_THREADS" in thread_environment(3)
