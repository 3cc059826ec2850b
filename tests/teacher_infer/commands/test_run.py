"""`teacher-infer plan` and `run`: the ordinary life of a store, with and without Ray."""

import json

import pytest

from box_store.store.reader import read_boxes
from box_store.store.store import BoxStore
from teacher_infer.run import service

from .conftest import statuses


def test_plan_tells_what_a_run_would_do_and_writes_nothing(cli, make_folder, request_of, store):
    code, out, _ = cli("plan", *request_of(make_folder(40)))
    assert code == 0
    assert "data set train: 40 images, 3 categories (person, car, kite)" in out
    assert "to be made" in out
    assert "2 of 3 teacher classes map to the data set; left out: unicorn" in out
    assert "categories that this teacher doesn't know: kite" in out
    assert "0 of 2 done, of 32 images each; 40 images to label" in out
    assert "licence MIT" in out
    assert not store.exists()


def test_run_then_plan_then_status(cli, make_folder, request_of, store):
    request = request_of(make_folder(40))
    code, out, err = cli("run", "--local", *request)
    assert code == 0
    assert "tiny" in out
    assert "2/2" in out
    assert "left out, of classes without a category: 40 unicorn" in out
    assert "without Ray" in err or "no Ray" in err
    assert statuses(store) == dict.fromkeys(range(1, 41), "ok")
    assert read_boxes(BoxStore.open(store), "tiny").num_rows == 40

    code, out, _ = cli("plan", *request)
    assert "2 of 2 done" in out
    assert "nothing to do" in out

    code, out, _ = cli("status", store)
    assert code == 0
    assert "2/2" in out
    assert "40/40" in out
    assert "MIT" in out


def test_a_second_run_says_that_all_is_there_and_loads_nothing(
    cli, make_folder, request_of, monkeypatch
):
    request = request_of(make_folder(4))
    cli("run", "--local", *request)
    monkeypatch.setattr("teacher_infer.commands.run.choose_pool", None)
    code, out, _ = cli("run", "--local", *request)
    assert code == 0
    assert "nothing to do: all of this is in the store already" in out
    assert "done already" in out


def test_a_plan_estimates_from_the_rate_so_far(cli, make_folder, request_of, monkeypatch):
    data = make_folder(8)
    request = [*request_of(data), "--unit-size", "4"]
    commit = service.Service._commit

    def stop_after_one(self, job, attempt):
        commit(self, job, attempt)
        raise KeyboardInterrupt

    monkeypatch.setattr(service.Service, "_commit", stop_after_one)
    code, _, err = cli("run", "--local", *request)
    assert code == 130
    assert "tiny: 1 of 2 units are in the store" in err
    assert "Run the same command again" in err
    code, out, _ = cli("plan", *request_of(data), "--json")
    row = json.loads(out)["teachers"][0]
    assert (row["units_done"], row["units"], row["images_done"]) == (1, 2, 4)
    assert row["estimate_s"] == pytest.approx(4 * row["seconds_per_image"])


@pytest.mark.slow
def test_dry_run_is_plan(cli, make_folder, request_of, store):
    request = request_of(make_folder(4))
    planned, dry = cli("plan", *request), cli("run", "--dry-run", *request)
    assert planned == dry
    assert not store.exists()


def test_json_is_json_and_nothing_else(cli, make_folder, request_of, store):
    request = request_of(make_folder(4))
    plan = json.loads(cli("plan", *request, "--json")[1])
    assert plan["dataset"] == {"name": "train", "images": 4, "problems": {}}
    assert plan["teachers"][0]["class_map"] == {"person": 1, "unicorn": None, "car": 3}
    assert plan["teachers"][0]["unseen"] == ["kite"]
    run = json.loads(cli("run", "--local", *request, "--json")[1])
    row = run["teachers"][0]
    assert (row["state"], row["boxes"], row["statuses"]) == ("done", 4, {"ok": 4})
    assert row["images_per_s"] > 0
    status = json.loads(cli("status", store, "--json")[1])
    assert status["teachers"][0]["images_done"] == 4
    assert status["teachers"][0]["fingerprint"] == plan["teachers"][0]["fingerprint"]
    adapters = json.loads(cli("list", "--json")[1])
    assert {"onnx", "mmdet", "ultralytics"} <= {row["adapter"] for row in adapters}


def test_several_teachers_and_splits_in_one_run(cli, make_folder, teacher, store):
    data = make_folder(4, "train")
    make_folder(3, "val", first_id=100)
    code, _, _ = cli(
        *("run", "--local", "--data", data, "--split", "train", "--split", "val"),
        *("--store", store, "--teacher", f"one={teacher}"),
        *("--teacher", f"two={teacher},score_floor=0.5,map.unicorn=kite"),
    )
    assert code == 0
    assert statuses(store, "one") == dict.fromkeys([1, 2, 3, 4, 100, 101, 102], "ok")
    boxes = read_boxes(BoxStore.open(store), "two").to_pydict()
    assert 7 in boxes["category_id"]
    assert min(boxes["score"]) >= 0.5


def test_teachers_from_a_file(cli, make_folder, detector, store, tmp_path):
    file = detector.with_name("teachers.toml")
    file.write_text(
        "[teachers.tiny]\nadapter='onnx'\nmodel='detector.onnx'\nformat='boxes'\n"
        f"classes='{detector.with_name('classes.txt')}'\n"
    )
    data = make_folder(3)
    code, _, _ = cli(
        *("run", "--local", "--images", data / "train"),
        *("--annotations", data / "annotations" / "instances_train.json"),
        *("--store", store, "--teachers", file),
    )
    assert code == 0
    assert len(statuses(store)) == 3


def test_without_a_ray_that_starts_the_work_is_done_all_the_same(
    cli, make_folder, request_of, store, monkeypatch
):
    ray_pool = pytest.importorskip("teacher_infer.workers.ray_pool")
    ray_cluster = pytest.importorskip("teacher_infer.workers.ray_cluster")

    def fail(specs, address):
        raise ray_cluster.RayUnavailable("Ray does not start: it is busy")

    monkeypatch.setattr(ray_pool, "RayPool", fail)
    request = request_of(make_folder(3))
    code, _, err = cli("run", *request, "--address", "10.0.0.1:6379")
    assert (code, "it is busy" in err) == (1, True)
    code, _, err = cli("run", *request)
    assert code == 0
    assert "one worker in this process (no Ray); Ray does not start: it is busy" in err
    assert len(statuses(store)) == 3


def test_without_ray_the_work_is_done_and_the_reason_said(
    cli, make_folder, request_of, store, monkeypatch
):
    monkeypatch.setattr(
        "teacher_infer.workers.choose_pool.importlib.util.find_spec", lambda name: None
    )
    request = request_of(make_folder(3))
    code, _, err = cli("run", *request, "--address", "auto")
    assert (code, "teach-detr[ray]" in err) == (2, True)
    code, _, err = cli("run", *request)
    assert (code, "teach-detr[ray]" in err) == (0, True)
    assert len(statuses(store)) == 3


def test_a_worker_in_a_process_of_its_own_gives_the_same(cli, make_folder, request_of, store):
    request = request_of(make_folder(5))
    code, _, err = cli("run", "--isolate", *request)
    assert (code, "processes (no Ray)" in err) == (0, True)
    assert statuses(store) == dict.fromkeys(range(1, 6), "ok")
