"""`teacher-infer` as people use it: what it prints, what it ends with, what it leaves behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from box_store.store.reader import read_boxes, read_images
from box_store.store.store import BoxStore
from teacher_infer.adapters.registry import adapter_info
from teacher_infer.cli import main
from teacher_infer.commands import listing as cli_list
from teacher_infer.run import service
from teacher_infer.teachers.spec import load_teachers, parse_teacher

Cli = Callable[..., tuple[int, str, str]]

# one image takes 50 ms, so that there is time to interfere
SLOW_MAIN = """
import signal, time
from teacher_infer.workers import worker
# tests started in the background of a shell hand on an ignored Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
load_image = worker.load_image
def slow(task):
    time.sleep(0.05)
    return load_image(task)
worker.load_image = slow
from teacher_infer.cli import main
main()
"""


@pytest.fixture
def cli(capsys) -> Cli:
    """cli(*arguments) -> exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        code = caught.value.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return (0 if code is None else int(code)), out, err

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def request_of(store: Path, teacher: str):
    """request_of(data, keys="") -> the arguments of `plan` and `run` for the tiny teacher."""

    def make(data: Path, keys: str = "", name: str = "tiny") -> list[str]:
        return [
            *("--data", str(data), "--split", "train", "--store", str(store)),
            *("--teacher", f"{name}={teacher},score_floor=0,threads=1{keys}"),
        ]

    return make


def statuses(store: Path, teacher: str = "tiny") -> dict[int, str]:
    rows = read_images(BoxStore.open(store), teacher).to_pylist()
    found = {row["image_id"]: row["status"] for row in rows}
    assert len(found) == len(rows)
    return found


# --- the ordinary life of a store


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


def test_list_teaches(cli):
    code, out, _ = cli("list")
    assert code == 0
    for text in ("AGPL-3.0", "--teacher yolox=onnx:", "score_floor=", "map.CLASS=", "pip install"):
        assert text in out
    assert "mmdet" not in cli("list", "onnx")[1]


def test_list_says_what_is_installed_and_how_models_are_named(cli):
    code, out, _ = cli("list", "onnx", "--verbose")
    assert code == 0
    for text in (
        f"installed onnxruntime {version('onnxruntime')}",
        "model     a path of an .onnx file",
        '[teachers.yolox]\n              adapter = "onnx"',
        "(default: the file's, if it has some, else COCO's 80)",
    ):
        assert text in out
    assert "(required)" in cli("list", "mmdet", "--verbose")[1]
    assert "(default: 0.05)" in out
    (row,) = json.loads(cli("list", "onnx", "--json")[1])
    assert row["installed"] == {"onnxruntime": version("onnxruntime")}
    assert row["options"]["std"] == {
        "help": "format=boxes: divided by, after the mean",
        "default": "255, or 1 for uint8",
    }


def test_the_examples_of_the_list_can_be_used(cli, tmp_path):
    for row in json.loads(cli("list", "--json")[1]):
        (tmp_path / "teachers.toml").write_text(row["toml"])
        assert load_teachers(tmp_path / "teachers.toml") == [parse_teacher(row["example"])]
        assert row["models"]
        assert row["files"]
        assert row["installed"]


def test_list_says_what_is_missing(monkeypatch):
    info = replace(adapter_info("onnx"), libraries=("no-such-thing|nor-this", "numpy"))
    assert info.installed() == {"no-such-thing": None, "numpy": version("numpy")}
    (line,) = [line for line in cli_list.lines([info], True) if "installed" in line]
    assert "no: no-such-thing missing" in line


def test_results_go_out_and_come_in(cli, make_folder, request_of, store, tmp_path):
    data = make_folder(6)
    cli("run", "--local", *request_of(data))
    out_file = tmp_path / "tiny.json"
    code, out, _ = cli("export", "--store", store, "--teacher", "tiny", "--out", out_file)
    assert (code, out.strip()) == (0, f"{out_file}: 6 boxes")
    annotations = data / "annotations" / "instances_train.json"
    copy = tmp_path / "copy"
    code, out, _ = cli(
        *("import", "--store", copy, "--name", "lab", "--results", out_file),
        *("--annotations", annotations, "--licence", "CC0-1.0"),
    )
    assert (code, out.strip()) == (0, "lab: 6 boxes of 6 images")
    assert BoxStore.open(copy).record("lab").licence == "CC0-1.0"
    first = read_boxes(BoxStore.open(store), "tiny").to_pydict()
    again = read_boxes(BoxStore.open(copy), "lab").to_pydict()
    assert again["image_id"] == first["image_id"]
    assert again["x2"] == first["x2"]
    code, out, _ = cli(
        *("import", "--store", copy, "--name", "lab", "--results", out_file),
        *("--licence", "CC0-1.0"),
    )
    assert (code, out.strip()) == (0, "lab: these results are in the store already")
    fused = tmp_path / "fused.json"
    assert cli("export", "--store", copy, "--fused", "--out", fused)[0] == 0
    assert len(json.loads(fused.read_text())) == 6


# --- what is wrong with a request


@pytest.mark.parametrize(
    ("keys", "code", "says"),
    [
        (",scoer_floor=0.1", 2, "Did you mean 'score_floor'"),
        (",fromat=boxes", 2, "Did you mean 'format'"),
        (",resize=letterbx", 2, "Did you mean 'letterbox'"),
        (",map.persn=person", 2, "Did you mean 'person'"),
        (",map.unicorn=kit", 2, "Did you mean 'kite'"),
    ],
)
def test_keys_and_names_that_do_not_exist(cli, make_folder, request_of, keys, code, says):
    result = cli("run", "--local", *request_of(make_folder(2), keys))
    assert result[0] == code
    assert says in result[2]


def test_an_adapter_or_file_that_does_not_exist(cli, make_folder, store, detector):
    data = make_folder(2)
    base = ["run", "--local", "--data", data, "--split", "train", "--store", store]
    code, _, err = cli(*base, "--teacher", "y=onx:y.onnx")
    assert code == 2
    assert "Did you mean 'onnx'" in err
    code, _, err = cli(*base, "--teacher", "y=onnx:nowhere.onnx,format=boxes")
    assert code == 1
    assert "nowhere.onnx" in err
    code, _, err = cli(*base)
    assert code == 2
    assert "no teacher" in err
    assert not store.exists()
    assert cli("list", "onx")[0] == 2


def test_options_of_the_command_that_do_not_exist(cli):
    assert cli("run", "--stroe", "x")[0] == 2
    assert cli("rnu")[0] == 2
    assert cli("run", "--local", "--address", "auto", "--store", "x")[0] == 2


def test_a_data_set_that_is_not_there_or_empty(cli, make_folder, request_of, tmp_path, store):
    code, _, err = cli("run", "--local", *request_of(tmp_path / "nowhere"))
    assert (code, "nowhere" in err) == (1, True)
    code, _, err = cli("run", "--local", *request_of(make_folder(0)))
    assert (code, "data set is empty" in err) == (1, True)
    assert not store.exists()


def test_another_configuration_under_the_same_name(cli, make_folder, request_of, store):
    data = make_folder(2)
    cli("run", "--local", *request_of(data))
    before = BoxStore.open(store).record("tiny").fingerprint
    for command in (["run", "--local"], ["plan"]):
        code, _, err = cli(*command, *request_of(data, ",top_k=5"))
        assert code == 1
        assert before[:12] in err
        assert "asked for" in err
        assert "options.top_k: 100 in the store, 5 asked for" in err
    assert BoxStore.open(store).record("tiny").fingerprint == before


def test_a_store_that_is_none_or_newer_or_of_other_categories(
    cli, make_folder, request_of, store, edit_annotations
):
    code, _, err = cli("status", store)
    assert (code, "no box store" in err) == (1, True)
    data = make_folder(2)
    cli("run", "--local", *request_of(data))
    edit_annotations(
        data, "train", lambda document: document["categories"].append({"id": 9, "name": "dog"})
    )
    code, _, err = cli("run", "--local", *request_of(data))
    assert (code, "another category table" in err) == (1, True)
    document = json.loads((store / "store.json").read_text())
    document["format_version"] = "99.0"
    (store / "store.json").write_text(json.dumps(document))
    code, _, err = cli("status", store)
    assert code == 1
    assert "99.0" in err


def test_results_of_other_images_are_refused_with_the_ids(cli, make_folder, store, tmp_path):
    data = make_folder(2)
    results = tmp_path / "results.json"
    entry = {"image_id": 77, "category_id": 2, "bbox": [1, 1, 5, 5], "score": 0.5}
    results.write_text(json.dumps([entry]))
    annotations = data / "annotations" / "instances_train.json"
    code, _, err = cli(
        *("import", "--store", store, "--name", "lab", "--results", results),
        *("--annotations", annotations),
    )
    assert code == 1
    assert "77" in err
    assert "unknown category ids: 2" in err
    assert BoxStore.open(store).teachers == {}
    code, _, err = cli("import", "--store", store, "--name", "lab", "--results", results)
    assert code == 2
    assert "annotation file" in err


def test_an_export_needs_to_know_whose_boxes(cli, store):
    code, _, err = cli("export", "--store", store, "--out", "x.json")
    assert (code, "--fused" in err) == (2, True)
    code, _, err = cli("export", "--store", store, "--teacher", "a", "--fused", "--out", "x.json")
    assert code == 2


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


# --- bad items among good ones


def test_every_kind_of_bad_image_is_recorded_and_skipped(
    cli, make_folder, request_of, edit_annotations, store
):
    data = make_folder(12)
    photos = data / "train"
    good = (photos / "000001.jpg").read_bytes()
    (photos / "000002.jpg").unlink()
    (photos / "000003.jpg").write_bytes(good[: len(good) // 2])
    (photos / "000004.jpg").write_bytes(b"<html></html>")
    Image.new("RGB", (48, 64)).save(photos / "000005.jpg")
    Image.new("L", (64, 48), 90).save(photos / "000006.jpg")
    Image.new("CMYK", (64, 48)).save(photos / "000007.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(photos / "000008.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(photos / "000009.jpg")
    (photos / "000010.jpg").rename(photos / "größe 写真.jpg")
    (data / "outside.jpg").write_bytes(good)

    def change(document):
        document["images"][8] |= {"width": 1, "height": 1}
        document["images"][9]["file_name"] = "größe 写真.jpg"
        document["images"][10]["file_name"] = "../outside.jpg"

    edit_annotations(data, "train", change)
    code, out, _ = cli("run", "--local", *request_of(data))
    assert code == 0
    bad = {image: status for image, status in statuses(store).items() if status != "ok"}
    assert bad == {
        2: "missing_file",
        3: "truncated",
        4: "not_an_image",
        5: "size_mismatch",
        11: "unsafe_path",
    }
    assert "1 missing_file, 1 not_an_image, 1 size_mismatch, 1 truncated, 1 unsafe_path" in out
    assert "--redo-bad" in out
    rows = {row["image_id"]: row for row in read_images(BoxStore.open(store), "tiny").to_pylist()}
    assert "48x64 px, the annotations say 64x48" in rows[5]["error"]
    assert rows[10]["file_name"] == "größe 写真.jpg"
    assert rows[9]["width"] == 1


def test_bad_images_that_were_repaired_are_labelled_on_request(cli, make_folder, request_of, store):
    data = make_folder(6)
    photo = data / "train" / "000002.jpg"
    content = photo.read_bytes()
    photo.unlink()
    cli("run", "--local", *request_of(data))
    assert statuses(store)[2] == "missing_file"
    photo.write_bytes(content)
    assert "nothing to do" in cli("run", "--local", *request_of(data))[1]
    assert cli("run", "--local", "--redo-bad", *request_of(data))[0] == 0
    assert set(statuses(store).values()) == {"ok"}


def test_one_teacher_fails_the_other_is_done_and_the_run_ends_with_an_error(
    cli, make_folder, request_of, store, tmp_path
):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    code, out, err = cli(
        *("run", "--local", *request_of(make_folder(3))),
        *("--teacher", f"broken=onnx:{broken},format=boxes"),
    )
    assert code == 1
    assert "failed" in out
    assert "broken.onnx" in err
    assert len(statuses(store)) == 3


# --- interference from outside, in processes of their own


def start_slowly(*arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def wait_for_units(store: Path, n_units: int) -> None:
    folder = store / "images" / "teacher=tiny"
    deadline = time.monotonic() + 60
    while len(list(folder.glob("part-*.parquet"))) < n_units:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_kill_9_loses_the_unit_in_flight_and_nothing_else(cli, make_folder, request_of, store):
    request = [*request_of(make_folder(40), ",batch_size=2"), "--unit-size", "4"]
    process = start_slowly("run", "--local", *request)
    wait_for_units(store, 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    folder = store / "images" / "teacher=tiny"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    assert 2 <= len(before) < 10
    code, _, _ = cli("run", "--local", *request)
    assert code == 0
    assert statuses(store) == dict.fromkeys(range(1, 41), "ok")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    assert before.items() <= after.items()
    assert len(after) == 10


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_what_is_safe_and_how_to_go_on(make_folder, request_of, store, number):
    request = [*request_of(make_folder(40), ",batch_size=2"), "--unit-size", "4"]
    process = start_slowly("run", "--local", *request)
    wait_for_units(store, 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = len(BoxStore.open(store).units_done("tiny"))
    assert f"tiny: {done} of 10 units are in the store" in err
    assert "Run the same command again to go on" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_two_runs_of_one_store_at_once_leave_every_image_once(make_folder, request_of, store):
    request = [*request_of(make_folder(24), ",batch_size=2"), "--unit-size", "4"]
    processes = [start_slowly("run", "--local", *request) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert statuses(store) == dict.fromkeys(range(1, 25), "ok")
    assert read_boxes(BoxStore.open(store), "tiny").num_rows == 24
    assert not list(store.rglob("*.tmp"))


@pytest.mark.slow
def test_a_disk_that_takes_no_more_ends_a_run_with_a_sentence(make_folder, request_of, store):
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))

    request = request_of(make_folder(8))
    process = start_slowly("run", "--local", *request, preexec_fn=limit_files)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "disk is full" in err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert BoxStore.open(store).units_done("tiny") == set()
    assert not list(store.rglob("*.tmp"))


@pytest.mark.slow
def test_the_console_script_is_installed_and_helps():
    script = Path(sys.executable).with_name("teacher-infer")
    environment = os.environ | {"COLUMNS": "100"}
    helped = subprocess.run(
        [script, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    for command in ("plan", "run", "list", "status", "import", "export"):
        assert command in helped.stdout
