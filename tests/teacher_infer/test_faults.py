"""What people's files and machines do to a run: never a wrong box in the store, never "done" for
nothing. Through the command, from the file to the exit code."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store.places.locations import RemoteError
from box_store.store.reader import read_boxes, read_images
from box_store.store.store import BoxStore
from teacher_infer.cli import main
from teacher_infer.workers import outage, worker

pytest.importorskip("onnx")
from onnx import TensorProto

Cli = Callable[..., tuple[int, str, str]]
Save = Callable[..., Path]

BOXES = np.array([[[4, 4, 20, 20], [30, 10, 60, 40]]], np.float32)
SCORES = np.array([[0.9, 0.6]], np.float32)
LABELS = np.array([[0, 1]], np.int64)
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """cli(*arguments) -> exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures of 64 x 48 in img/ and ann.json, two categories."""
    (tmp_path / "img").mkdir()
    images = [{"id": i, "file_name": f"im{i}.png", "width": 64, "height": 48} for i in (1, 2, 3, 4)]
    for image in images:
        Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / "img" / image["file_name"])
    write(tmp_path, images)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    return tmp_path


def write(folder: Path, images: list[dict[str, object]], categories: object = None) -> None:
    document = {"images": images, "annotations": [], "categories": categories or CATEGORIES}
    (folder / "ann.json").write_text(json.dumps(document))


@pytest.fixture
def save(constants: Callable[..., Path]) -> Callable[..., Path]:
    """save(output=values, ...) -> m.onnx, a model of these constants."""
    return partial(constants, {"images": (TensorProto.FLOAT, [1, 3, 48, 64])})


def asked(folder: Path, keys: str = "classes=names.txt") -> list[str]:
    keys = keys.replace("names.txt", str(folder / "names.txt"))
    return [
        *("--images", str(folder / "img"), "--annotations", str(folder / "ann.json")),
        *("--store", str(folder / "store"), "--teacher"),
        f"x=onnx:{folder / 'm.onnx'},format=boxes,{keys}",
    ]


def statuses(folder: Path) -> list[str]:
    store = BoxStore.open(folder / "store")
    return read_images(store, "x", ["status"]).to_pydict()["status"]


def test_the_baseline_is_labelled(cli: Cli, data: Path, save: Save) -> None:
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    code, out, _ = cli("run", "--local", "--json", *asked(data))
    (row,) = json.loads(out)["teachers"]
    assert (code, row["state"], row["boxes"]) == (0, "done", 8)


@pytest.mark.parametrize("scores", [[[5.3, 1.7]], [[98.0, 41.0]], [[-3.0, -0.4]]])
def test_scores_that_are_none_stop_the_teacher_at_once(
    cli: Cli, data: Path, save: Save, scores: list[list[float]]
) -> None:
    save(boxes=BOXES, scores=np.array(scores, np.float32), labels=LABELS)
    code, out, err = cli("run", "--local", "--json", *asked(data))
    (row,) = json.loads(out)["teachers"]
    assert (code, row["state"], row["units_done"]) == (1, "failed", 0)
    assert "expected 0 to 1" in err


@pytest.mark.parametrize("isolate", [False, True])
def test_a_teacher_of_numbers_that_are_none_is_stopped(
    cli: Cli, data: Path, save: Save, isolate: bool
) -> None:
    save(boxes=BOXES, scores=SCORES * np.float32(np.nan), labels=LABELS)
    code, _, err = cli("run", "--isolate" if isolate else "--local", *asked(data))
    assert code == 1
    assert "fails on every image of its first unit" in err
    assert "not finite" in err


def test_labels_that_count_from_1_are_refused_or_remarked_on(
    cli: Cli, data: Path, save: Save
) -> None:
    save(boxes=BOXES, scores=SCORES, labels=LABELS + 1)
    code, _, err = cli("run", "--isolate", *asked(data))
    assert code == 1
    assert "seem to count from 1: say first_label=1" in err
    # within COCO's 80 names nothing is out of range: it is said
    words = [word.replace("x=onnx", "y=onnx") for word in asked(data, "map.car=dog")]
    code, _, err = cli("run", "--local", *words)
    assert code == 0, err
    assert "no box had the label 0 (person)" in err
    assert "say first_label=1" in err


def test_weights_beside_the_file_are_compared_when_a_run_goes_on(
    cli: Cli, data: Path, external: Callable[..., None]
) -> None:
    external(data / "m.onnx", 0.9)
    (data / "img" / "im4.png").rename(data / "im4.png")
    assert cli("run", "--local", "--unit-size", 1, *asked(data))[0] == 0
    external(data / "m.onnx", 0.4)
    (data / "im4.png").rename(data / "img" / "im4.png")
    code, _, err = cli("run", "--local", "--unit-size", 1, "--redo-bad", *asked(data))
    assert code != 0
    assert "weights_sha256" in err
    boxes = read_boxes(BoxStore.open(data / "store"), "x").to_pydict()
    assert sorted(set(boxes["image_id"])) == [1, 2, 3]


def test_a_list_of_class_names_is_part_of_the_teacher(cli: Cli, data: Path, save: Save) -> None:
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    assert cli("run", "--local", *asked(data))[0] == 0
    (data / "names.txt").write_text("dog\ncat\n")
    code, _, err = cli("run", "--local", *asked(data))
    assert code != 0
    assert "weights_sha256" in err


def test_a_run_that_could_use_no_image_is_not_done(cli: Cli, data: Path, save: Save) -> None:
    images = [{"id": i, "file_name": f"im{i}.jpg", "width": 48, "height": 64} for i in (1, 2, 3, 4)]
    exif = Image.Exif()
    exif[0x0112] = 6
    for image in images:
        picture = Image.new("RGB", (64, 48))
        picture.save(data / "img" / str(image["file_name"]), exif=exif)
    write(data, images)
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    for unit_size in (4, 1):
        for _ in range(2):
            code, out, err = cli(
                *("run", "--local", "--json", "--unit-size", unit_size, *asked(data)[:-2]),
                *("--teacher", asked(data)[-1].replace("x=", f"x{unit_size}=")),
            )
            (row,) = json.loads(out)["teachers"]
            assert (code, row["state"]) == (1, "failed")
            assert "not one image could be used" in err
            assert "size_mismatch" in err


def test_some_bad_images_end_no_run(cli: Cli, data: Path, save: Save) -> None:
    for i in (1, 2, 3):
        (data / "img" / f"im{i}.png").unlink()
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    assert cli("run", "--local", "--unit-size", 1, *asked(data))[0] == 0
    assert sorted(statuses(data)) == ["missing_file"] * 3 + ["ok"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A server of images that is away for as many requests as the one number says."""
    away = [0]
    load = worker.load_image

    def fetch(task: worker.ImageTask) -> np.ndarray:
        if away[0]:
            away[0] -= 1
            raise RemoteError(5, "cannot read s3://photos: connection refused")
        return load(task)

    monkeypatch.setattr(worker, "load_image", fetch)
    monkeypatch.setattr(outage, "_PAUSES_S", (0.01,))
    return away


@pytest.mark.parametrize("n_requests", [1, 3, 30])
def test_images_of_a_server_that_is_away_are_tried_again(
    cli: Cli, data: Path, save: Save, server: list[int], n_requests: int
) -> None:
    server[0] = n_requests
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    assert cli("run", "--local", *asked(data))[0] == 0
    assert statuses(data) == ["ok"] * 4


def test_a_server_that_stays_away_fails_the_run_and_blames_no_image(
    cli: Cli, data: Path, save: Save, server: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server[0] = 1_000_000
    monkeypatch.setattr(outage, "_PATIENCE_S", 0.2)
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    code, _, err = cli("run", "--local", *asked(data))
    assert code == 1
    assert "4 unreachable" in err
    assert "connection refused" in err


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("", "NMS          none"),
        (",nms_iou=none", "NMS          none"),
        (",nms_iou=default", "NMS          none"),
        (",nms_iou=0.5", "NMS          class-wise, at an IoU of 0.5"),
    ],
)
def test_a_plan_says_which_suppression_runs(
    cli: Cli, data: Path, save: Save, keys: str, says: str
) -> None:
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    code, out, _ = cli("plan", *asked(data, f"classes=names.txt{keys}"))
    assert code == 0
    assert says in out, out


def test_a_name_that_two_categories_have_is_told_by_the_teachers_key(
    cli: Cli, data: Path, save: Save
) -> None:
    twice = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 7, "name": "cat"}]
    images = [{"id": 1, "file_name": "im1.png", "width": 64, "height": 48}]
    write(data, images, twice)
    save(boxes=BOXES, scores=SCORES, labels=LABELS)
    code, _, err = cli("run", "--local", *asked(data, "classes=names.txt,map.dog=none"))
    assert code != 0
    assert "map.cat=0 or map.cat=7" in err
    assert cli("run", "--local", *asked(data, "classes=names.txt,map.cat=7,map.dog=none"))[0] == 0
