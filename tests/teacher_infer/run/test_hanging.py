"""Workers that hang: found by their silence, whatever the clock on the wall says."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from box_store.store.reader import read_boxes, read_images
from teacher_infer.run.service import Interrupted
from teacher_infer.workers.pool import Cause, Event, Finished, Started

from .conftest import FakePool, HungPool


@dataclass
class StuckPool(HungPool):
    """Some workers never finish loading; `queued` of them never even begin."""

    stuck: Callable[[int], bool] = lambda worker: True
    queued: bool = False

    def _load(self, worker: int) -> Event:
        if not self.stuck(worker):
            return super()._load(worker)
        return Finished(-1) if self.queued else Started(worker)


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
