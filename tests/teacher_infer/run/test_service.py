"""The run: what becomes of units when workers die and teachers fail."""

from box_store.store.reader import boxes_of
from teacher_infer.workers.pool import Cause

from .conftest import LOADED, FakePool


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
