"""A trained student as a function from images to boxes."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from box_store.errors import DataError, UsageError
from box_store.results.exporting import detections
from box_store.tiling.tiles import Tiling
from student_train.bench.students import random_student
from student_train.config import resolve
from student_train.data.video import read_frames
from student_train.errors import CheckpointError, RunError
from student_train.evaluation import of_run
from student_train.evaluation.of_run import evaluate_run
from student_train.export.transformers_folder import export_folder
from student_train.machine.runtime import Runtime
from student_train.models.hub.fetching import Fetched
from student_train.prediction.drawing import draw_boxes, save_picture
from student_train.prediction.overwriting import check_targets
from student_train.prediction.predicting import list_images, predict_images
from student_train.prediction.video import writing
from student_train.predictor import Predictor, load_predictor
from student_train.presets import load_preset
from student_train.runs.checkpoint import save_weights
from student_train.runs.run_folder import RunFolder
from student_train.runs.states import StateFolder
from student_train.runs.trained import load_student
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer
from student_train.training.launch import train


@pytest.fixture(scope="module")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps: its detections are bad, but they are detections."""
    return trained(toy, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def averaged(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an average of the weights."""
    return trained(toy, tmp_path_factory.mktemp("runs") / "averaged", **{"optim.ema": "0.5"})


def trained(toy: Path, out: Path, **changes: str) -> Path:
    settings = {"data.root": str(toy), "steps": "3", "model.n_queries": "8", "model.top_k": "8"}
    layer = Layer(ARGUMENT, settings | changes)
    resolved = resolve(load_preset("dino-micro"), arguments=[layer])
    train(resolved, out, Console(file=io.StringIO()), command=["test"])
    return out


def picture(toy: Path, number: int = 1) -> np.ndarray:
    return np.asarray(Image.open(toy / "val2017" / f"{number:03d}.png").convert("RGB"))


def test_boxes_are_in_the_pixels_of_the_image(toy: Path, run: Path):
    predictor = load_predictor(run, "cpu")
    assert predictor.class_names == ("red", "green", "blue")
    small = picture(toy)
    large = np.repeat(np.repeat(small, 2, 0), 3, 1)
    found = predictor.predict([small, large])
    assert [(boxes.width, boxes.height) for boxes in found] == [(80, 64), (240, 128)]
    for boxes in found:
        assert len(boxes) > 0
        assert set(boxes.class_ids.tolist()) <= {0, 1, 2}
        assert (np.diff(boxes.scores) <= 0).all()
        assert boxes == boxes.clipped()
    assert predictor.predict([]) == []


def test_a_batch_of_one_size_equals_single_images(toy: Path, run: Path):
    predictor = load_predictor(run, "cpu")
    images = [picture(toy, 1), picture(toy, 2)]
    for together, alone in zip(
        predictor.predict(images), (predictor.predict([i])[0] for i in images), strict=True
    ):
        np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=1e-2)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-4)


def test_tiles_are_looked_at_beside_the_whole(toy: Path, run: Path, tmp_path: Path):
    image = np.concatenate([picture(toy, 1), picture(toy, 2)], 1)
    alone = load_predictor(run, "cpu")
    tiled = load_predictor(run, "cpu", tile=64, overlap=0.3)
    (found,) = tiled.predict([image])
    looks = Tiling(64, 0.3).windows(160, 64)
    assert len(looks) == 4
    expected = {tuple(box) for box in alone.predict([image])[0].boxes_xyxy.tolist()}
    for look in looks:
        (part,) = alone.predict([look.show(image)])
        expected |= {tuple(box) for box in look.to_image(part).boxes_xyxy.tolist()}
    assert (found.width, found.height) == (160, 64)
    assert {tuple(box) for box in found.boxes_xyxy.tolist()} <= expected
    assert (np.diff(found.scores) <= 0).all()
    assert found == found.nms(0.6)
    # an image no larger than a tile is seen as ever
    small = image[:, :60]
    assert tiled.predict([small]) == alone.predict([small])
    Image.fromarray(image).save(tmp_path / "wide.png")
    done = predict_images(
        run, [tmp_path / "wide.png"], tmp_path / "out", 0.0, "best", "cpu", tiling=tiled.tiling
    )
    assert len(done.rows[0]["detections"]) == len(found)
    with pytest.raises(UsageError, match="at least 32 pixels"):
        load_predictor(run, "cpu", tile=3)


def test_the_predictor_and_the_evaluation_agree(run: Path, toy: Path):
    """The same image through both paths gives the same COCO results, but for the rounding of batch
    norms that are part of convolutions.
    """
    done = evaluate_run(run, None, None, "best", "cpu", None, {"eval_batch_size": "1"})
    predictor = load_predictor(run, "cpu")
    ids = np.array(predictor.categories.ids)
    mine = [
        row
        for image_id in range(1, 5)
        for boxes in predictor.predict([picture(toy, image_id)])
        for row in detections(image_id, replace(boxes, class_ids=ids[boxes.class_ids]))
    ]
    theirs = [row for image in done.evaluation.found for row in detections(*image)]
    assert theirs == json.loads(done.path.read_bytes())
    assert len(mine) == len(theirs)
    for row, other in zip(mine, theirs, strict=True):
        assert (row["image_id"], row["category_id"]) == (other["image_id"], other["category_id"])
        assert row["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert row["score"] == pytest.approx(other["score"], abs=1e-4)
    metrics = json.loads((done.path.parent / "val2017.metrics.json").read_bytes())
    assert metrics["n_images"] == 4


def test_one_file_is_enough(toy: Path, run: Path, tmp_path: Path):
    alone = tmp_path / "student.safetensors"
    alone.write_bytes(RunFolder(run).best.read_bytes())
    first = load_predictor(alone, "cpu").predict([picture(toy)])
    assert first == load_predictor(run, "cpu").predict([picture(toy)])


def test_last_weights_can_be_asked_for(run: Path):
    assert load_student(run, "last").origin == f"step 3 of {run}"


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_run_with_an_average_detects_and_exports_with_it(averaged: Path, weights: str):
    state, _ = StateFolder(averaged / "checkpoints").load()
    raw, average = state["model"], state["average"]["model"]
    student = load_student(averaged, weights).model.state_dict()
    assert all(torch.equal(student[key], average[key]) for key in average)
    assert not all(torch.equal(student[key], raw[key]) for key in raw)


def test_runs_and_weights_that_are_none_are_named(run: Path, tmp_path: Path):
    with pytest.raises(RunError, match="does not exist"):
        load_student(tmp_path / "none")
    with pytest.raises(RunError, match=r"has no config\.json"):
        load_student(tmp_path)
    foreign = tmp_path / "w.safetensors"
    save_weights(foreign, {"a": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="no known detector wrote"):
        load_student(foreign)
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    with pytest.raises(RunError, match=r"has no best\.safetensors yet"):
        load_student(tmp_path)
    with pytest.raises(UsageError, match="best or last"):
        evaluate_run(run, None, None, "worst", "cpu", None, {})


def test_predictions_are_drawn_and_bad_images_recorded(toy: Path, run: Path, tmp_path: Path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 no jpeg")
    again = tmp_path / "001.png"
    again.write_bytes((toy / "val2017" / "001.png").read_bytes())
    done = predict_images(run, [toy / "val2017", again, bad], tmp_path / "out", 0.0, "best", "cpu")
    assert done.n_read == 5
    assert next(row for row in done.rows if "error" in row)["file"] == str(bad)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"001.jpg", "001-2.jpg", "004.jpg", "predictions.json"} <= names
    row = json.loads((tmp_path / "out/predictions.json").read_text())[0]
    assert row["detections"][0]["category"] in ("red", "green", "blue")
    assert row["detections"][0]["category_id"] in (2, 5, 9)


def test_a_video_becomes_a_video(toy: Path, run: Path, tmp_path: Path):
    pytest.importorskip("cv2")
    with writing(tmp_path / "clip.mp4", 5) as writer:
        for number in (1, 2, 3, 4, 1):
            writer.add(picture(toy, number))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = predict_images(
        run, [tmp_path / "clip.mp4", tmp_path / "bad.mp4"], tmp_path / "out", 0, "best", "cpu", 2
    )
    assert [row.get("frame") for row in done.rows] == [0, 2, 4, None]
    assert "cannot be read as a video" in done.rows[-1]["error"]
    assert done.rows[0]["detections"]
    frames = list(read_frames(tmp_path / "out/clip.mp4"))
    assert [frame.image.shape for frame in frames] == [(64, 80, 3)] * 3


def test_a_predictor_goes_through_a_video(toy: Path, run: Path, tmp_path: Path, monkeypatch):
    pytest.importorskip("cv2")
    with writing(tmp_path / "clip.mp4", 5) as writer:
        for number in (1, 2, 3):
            writer.add(picture(toy, number))
    predictor = load_predictor(run, "cpu")
    found = list(predictor.video(tmp_path / "clip.mp4", every=2))
    assert [frame.index for frame, _ in found] == [0, 2]
    for frame, boxes in found:
        (alone,) = predictor.predict([frame.image])
        assert boxes.boxes_xyxy.tolist() == alone.boxes_xyxy.tolist()
    with pytest.raises(UsageError, match="at least the 1st, got 0"):
        predictor.video(tmp_path / "clip.mp4", every=0)
    with pytest.raises(DataError, match="no video at"):
        predictor.video(tmp_path / "none.mp4")
    monkeypatch.setattr("student_train.data.video.importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"teach-detr\[video\]"):
        predictor.video(tmp_path / "clip.mp4")


def test_without_opencv_the_extra_is_named(run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("student_train.data.video.importlib.util.find_spec", lambda _: None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match=r"teach-detr\[video\]"):
        predict_images(run, [tmp_path / "clip.mp4"], tmp_path, 0, "best", "cpu")


def test_images_are_listed_by_name(toy: Path, tmp_path: Path):
    assert [path.name for path in list_images([toy / "val2017"])] == [
        "001.png",
        "002.png",
        "003.png",
        "004.png",
    ]
    with pytest.raises(DataError, match="no image at"):
        list_images([tmp_path / "none.png"])
    with pytest.raises(DataError, match="no images"):
        list_images([tmp_path])


def test_drawing_leaves_the_image_alone(toy: Path, run: Path):
    image = picture(toy)
    before = image.copy()
    predictor = load_predictor(run, "cpu")
    boxes = predictor.predict([image])[0]
    drawn = draw_boxes(image, boxes, predictor.class_names)
    assert (image == before).all()
    assert (drawn != before).any()
    assert (draw_boxes(image, boxes.above(1), predictor.class_names) == before).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2)])
def test_odd_sizes_are_images_too(run: Path, size: tuple[int, int]):
    boxes = load_predictor(run, "cpu").predict([np.zeros((*size, 3), np.uint8)])[0]
    assert (boxes.height, boxes.width) == size
    assert boxes == boxes.clipped()


def test_pictures_do_not_replace_what_predict_did_not_draw(tmp_path: Path):
    photo, other, drawn = (tmp_path / f"{name}.jpg" for name in ("photo", "other", "drawn"))
    Image.new("RGB", (8, 8)).save(photo)
    with pytest.raises(UsageError, match=r"photo.jpg would be overwritten, and is one of the imag"):
        check_targets(tmp_path, {photo: "photo.jpg"})
    elsewhere = tmp_path / "in" / "other.jpg"
    elsewhere.parent.mkdir()
    Image.new("RGB", (8, 8)).save(elsewhere)
    Image.new("RGB", (8, 8)).save(other)
    with pytest.raises(UsageError, match="was not drawn by an earlier predict"):
        check_targets(tmp_path, {elsewhere: "other.jpg"})
    save_picture(drawn, np.zeros((8, 8, 3), np.uint8))
    check_targets(tmp_path, {photo: "drawn.jpg", elsewhere: "new.jpg"})
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "predictions.json").write_text(json.dumps([{"file": "a", "picture": "p/clip.mp4"}]))
    check_targets(tmp_path, {photo: "clip.mp4"})
    (tmp_path / "predictions.json").write_text('{"mine": 1}')
    with pytest.raises(UsageError, match=r"predictions.json would be overwritten"):
        check_targets(tmp_path, {photo: "new.jpg"})


def test_a_hard_link_to_an_input_is_the_input(tmp_path: Path):
    photo = tmp_path / "in" / "a.png"
    photo.parent.mkdir()
    Image.new("RGB", (8, 8)).save(photo)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").hardlink_to(photo)
    with pytest.raises(UsageError, match="is one of the images"):
        check_targets(tmp_path / "out", {photo: "a.jpg"})


def test_a_folder_that_takes_no_results_is_refused_before_the_work(
    toy: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(of_run, "evaluate_model", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(UsageError, match="file/x cannot be written"):
        evaluate_run(run, toy, None, "best", "cpu", tmp_path / "file" / "x", {})
    with pytest.raises(UsageError, match="file/x cannot be written"):
        predict_images(run, [toy / "val2017"], tmp_path / "file" / "x", 0.5, "best", "cpu")


def test_metrics_are_told_though_they_can_not_be_written(
    toy: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(of_run, "write_json", full)
    done = evaluate_run(run, toy, None, "best", "cpu", tmp_path / "out", {})
    assert done.evaluation.metrics.AP is not None
    assert "could not be written" in done.unwritten


def test_a_folder_of_transformers_and_names_on_the_hub(tmp_path: Path, monkeypatch):
    student = random_student(load_preset("rf-detr-micro"))
    export_folder(student, tmp_path / "hf")
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    (ours,) = Predictor(student, Runtime.start("cpu")).predict([image])
    (read,) = load_predictor(str(tmp_path / "hf"), "cpu").predict([image])
    assert read.boxes_xyxy == pytest.approx(ours.boxes_xyxy, abs=1e-2)

    def fetched(path: Path) -> Fetched:
        assert str(path) == "hub:me/mine@v1"
        return Fetched(tmp_path / "hf", {"hub": "me/mine@abc"})

    with pytest.raises(CheckpointError, match="expected hub:ORG/NAME"):
        load_predictor("hub:mine", "cpu")
    monkeypatch.setattr("student_train.runs.importing.fetch", fetched)
    (read,) = load_predictor("hub:me/mine@v1", "cpu").predict([image])
    assert read.boxes_xyxy == pytest.approx(ours.boxes_xyxy, abs=1e-2)
