"""What a second run does: goes on, tries again, or refuses."""

from pathlib import Path

import pytest

from box_store.errors import FingerprintMismatch
from teacher_infer.data.dataset import load_dataset
from teacher_infer.data.images import ImageError
from teacher_infer.run.prepare import prepare
from teacher_infer.run.service import Interrupted
from teacher_infer.workers.worker import failed_row

from . import conftest
from .conftest import WEIGHTS, FakePool, row_of


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


def test_failed_images_can_be_tried_again(bench, monkeypatch):
    original = row_of

    def miss(task):
        error = ImageError("missing_file", "no file")
        return failed_row(task, error) if task.image_id == 7 else original(task)

    monkeypatch.setattr(conftest, "row_of", miss)
    bench.run(FakePool(), bench.job())
    assert bench.statuses()[7] == "missing_file"
    monkeypatch.setattr(conftest, "row_of", original)
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

    monkeypatch.setattr(conftest, "row_of", miss)
    bench.run(FakePool(), bench.job())

    def stop(worker, tasks):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        bench.run(FakePool(on_batch=stop), bench.job(redo_bad=True))
    assert len(bench.statuses()) == 20


def test_a_teacher_that_fails_on_everything_stores_nothing(bench, monkeypatch):
    def fail(task):
        return failed_row(task, ImageError("predict_error", "wrong shape", (64, 48)))

    monkeypatch.setattr(conftest, "row_of", fail)
    job = bench.job()
    bench.run(FakePool(), job)
    assert "fails on every image of its first unit (5 images): wrong shape" in job.error
    assert bench.store.units_done("tiny") == set()


def test_weights_that_changed_since_the_first_run_are_refused_before_a_worker_starts(bench):
    bench.run(FakePool(), bench.job())
    Path(bench.model).write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(FingerprintMismatch, match="weights_sha256"):
        bench.job()
