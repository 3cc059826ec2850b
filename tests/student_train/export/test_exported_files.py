"""An exported file predicts, is evaluated and teaches without being told how."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from box_store.errors import UsageError
from student_train import load_predictor
from student_train.cli import app
from student_train.errors import ExportError
from student_train.runs.exported import CARD, load_exported
from teacher_infer.adapters.protocol import AdapterSpec
from teacher_infer.teachers.loaded import load_teacher, weights_files

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., Path]
IMAGES = [np.zeros((40, 60, 3), np.uint8), np.zeros((30, 80, 3), np.uint8)]


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_a_file_predicts_in_pixels_of_its_images(exported: Make, batch: object) -> None:
    predictor = load_predictor(exported(batch))
    assert predictor.class_names == ("cat", "dog")
    first, second = predictor.predict(IMAGES)
    assert first.boxes_xyxy.tolist() == [[0, 0, 30, 40], [0, 0, 60, 40]]
    assert second.boxes_xyxy.tolist() == [[0, 0, 40, 30], [0, 0, 80, 30]]
    assert first.class_ids.tolist() == [1, 0]
    assert first.scores == pytest.approx([0.9, 0.6])


def test_a_file_of_one_size_takes_what_fits(exported: Make) -> None:
    model = load_exported(exported(1, 32, 48)).model
    seen = {}

    def program(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.update(feeds)
        return run(feeds)

    run, model._program = model._program, program  # type: ignore[assignment]
    model(torch.ones(1, 3, 20, 30), torch.zeros(1, 20, 30, dtype=torch.bool))
    assert seen["images"].shape == (1, 3, 32, 48)
    assert seen["images"][0, :, :20, :30].all()
    assert not seen["images"][0, :, 20:].any()
    assert seen["mask"][0, 20:].all()
    assert seen["mask"][0, :, 30:].all()
    assert not seen["mask"][0, :20, :30].any()
    with pytest.raises(ExportError, match=r"takes images of 32 x 48 px.*this one is 48 x 32"):
        model(torch.ones(1, 3, 48, 32), torch.zeros(1, 48, 32, dtype=torch.bool))


@pytest.mark.parametrize("adapter", ["onnx", "student"])
def test_a_file_is_a_teacher_without_options(exported: Make, adapter: str) -> None:
    spec = AdapterSpec(adapter, str(exported()), score_floor=0.5)
    teacher = load_teacher(spec)
    assert teacher.class_names == ("cat", "dog")
    boxes = teacher.predict([IMAGES[0]])[0]
    assert boxes.boxes_xyxy.tolist() == [[0, 0, 30, 40], [0, 0, 60, 40]]
    assert [path.name for path in weights_files(spec)] == ["student.onnx"]


def test_options_beside_what_the_file_says_are_refused(exported: Make) -> None:
    spec = AdapterSpec("onnx", str(exported()), options={"image_size": "64"})
    with pytest.raises(UsageError, match="says itself how to read it: leave image_size out"):
        load_teacher(spec)


def test_predict_and_eval_take_the_file(exported: Make, toy: Path, tmp_path: Path) -> None:
    path = exported()
    photo = next((toy / "val2017").glob("*.png"))
    done = CliRunner().invoke(
        app, ["predict", str(path), str(photo), "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [each["category"] for each in row["detections"]] == ["dog", "cat"]
    # other categories than the file's
    done = CliRunner().invoke(app, ["eval", str(path), "--data", str(toy), "--split", "val2017"])
    assert done.exit_code != 0
    assert "categories" in str(done.exception)


def test_files_of_others_and_damaged_ones_are_refused(
    network: Make, exported: Make, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"does not say which student it is \(inputs images;"):
        load_predictor(network())
    with pytest.raises(ExportError, match="no ONNX file at"):
        load_predictor(tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(ExportError, match="onnxruntime cannot open it as a model"):
        load_predictor(tmp_path / "cut.onnx")
    path = exported()
    model = onnx.load(str(path))
    for entry in model.metadata_props:
        if entry.key == CARD:
            entry.value = entry.value[:-40]
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="its metadata cannot be read"):
        load_predictor(path)
