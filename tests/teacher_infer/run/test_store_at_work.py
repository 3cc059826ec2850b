"""What a store does to a run: it goes away, fills up, and others write it too."""

import errno
from collections import deque
from functools import partial
from typing import ClassVar

import pytest

from box_store.errors import StoreError
from box_store.places import files
from teacher_infer.run import service
from teacher_infer.run.progress import PlainReporter
from teacher_infer.run.service import Service
from teacher_infer.run.store_watch import StoreWatch
from teacher_infer.workers.pool import Event

from .conftest import FakePool, HungPool


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
