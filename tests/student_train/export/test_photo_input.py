"""A file that takes photos as they are makes the pixels that the student sees."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from student_train import load_predictor
from student_train.cli import app
from student_train.config import TrainConfig
from student_train.data import AsStored
from student_train.errors import ExportError
from student_train.export.photo_input import check_fits, photos_apart, take_photos
from student_train.export.photos import open_validation, photos
from student_train.export.runtimes import RUNTIMES, Served
from student_train.export.verifying import Asked, verify_file
from student_train.predictor import as_batch
from student_train.presets import load_preset
from student_train.runs.exported import CARD, PhotoStudent, load_exported
from teacher_infer.adapters.protocol import AdapterSpec
from teacher_infer.teachers.loaded import load_teacher

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., Path]


def config(preset: str = "dino-micro", **augment: Any) -> TrainConfig:
    """A preset's, seen at other sizes."""
    made = load_preset(preset)
    return replace(made, augment=replace(made.augment, **augment))


KEPT: Any = {"eval_short_side": 60, "eval_long_side": 100}


@pytest.mark.parametrize(
    ("seen", "sizes"),
    [
        (config(**KEPT), {}),
        (config("lw-detr-micro", eval_square=None, **KEPT), {}),
        (config(eval_square=64), {}),
        (config(**KEPT), {"batch": 1, "height": 112, "width": 128}),
    ],
    ids=["free", "multiples", "square", "of one size"],
)
def test_pixels_are_those_made_outside(exported: Make, seen: TrainConfig, sizes: Any) -> None:
    path = exported(**sizes)
    take_photos(path, seen)
    assert photos_apart(path, seen, sizes.get("batch", 1)) < 1.01
    (given,) = onnx.load(str(path)).graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    names = [one.dim_param or one.dim_value for one in given.type.tensor_type.shape.dim]
    assert names == [sizes.get("batch", "batch"), "height", "width", 3]


def test_a_grey_level_of_the_mean_is_seen(exported: Make) -> None:
    seen = config(**KEPT)
    path = exported()
    take_photos(path, seen)
    model = onnx.load(str(path))
    (mean,) = (one for one in model.graph.initializer if one.name == "photo_mean")
    mean.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(mean) + 2, mean.name))
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="makes other pixels of photos than the student sees: by"):
        photos_apart(path, seen)


def test_photos_that_stand_have_to_fit() -> None:
    seen = config(**KEPT)
    check_fits(seen, (100, 112))
    with pytest.raises(ExportError, match=r"60 x 100 px, and photos .* give --size 100x100"):
        check_fits(seen, (60, 100))
    check_fits(config(eval_square=64), (64, 64))


IMAGES = [np.full((40, 60, 3), 90, np.uint8), np.zeros((30, 80, 3), np.uint8)]


@pytest.fixture
def fused(exported: Make) -> Callable[..., Path]:
    """A file that takes photos."""

    def make(**sizes: object) -> Path:
        path = exported(**sizes)
        take_photos(path, load_exported(path).config)
        return path

    return make


@pytest.mark.parametrize("batch", ["batch", 2])
def test_it_predicts_and_teaches_without_being_told_how(fused: Make, batch: object) -> None:
    path = fused(batch=batch)
    student = load_exported(path)
    assert student.resizes
    first, second = load_predictor(path).predict(IMAGES)
    assert first.boxes_xyxy.tolist() == [[0, 0, 30, 40], [0, 0, 60, 40]]
    assert second.boxes_xyxy.tolist() == [[0, 0, 40, 30], [0, 0, 80, 30]]
    teacher = load_teacher(AdapterSpec("onnx", str(path), score_floor=0.5))
    assert teacher.predict([IMAGES[1]])[0].boxes_xyxy.tolist() == second.boxes_xyxy.tolist()


def test_bytes_come_back_as_they_were(fused: Make) -> None:
    student = load_exported(fused())
    assert isinstance(student.model, PhotoStudent)
    generator = np.random.default_rng(0)
    given = [generator.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((5, 9), (8, 4), (1, 1))]
    batch = as_batch(given, AsStored(), 1).to("cpu", student.config.model.pixels)
    for fed, image in zip(student.model.feeds(batch.images, batch.mask), given, strict=True):
        assert np.array_equal(fed["images"][0], image)


def test_eval_and_verify_feed_photos_as_they_lie(fused: Make, toy: Path, tmp_path: Path) -> None:
    path = fused()
    model = onnx.load(str(path))
    table = json.loads((toy / "annotations" / "instances_val2017.json").read_text())
    for entry in model.metadata_props:
        if entry.key == CARD:
            told = json.loads(entry.value)
            told["classes"]["categories"] = table["categories"]
            entry.value = json.dumps(told)
    onnx.save(model, str(path))
    student = load_exported(path)
    fed = photos(student, open_validation(student, toy, "val2017", 2), 1)
    stored = [
        np.asarray(Image.open(toy / "val2017" / one["file_name"]).convert("RGB"))
        for one in table["images"][:2]
    ]
    for each, image in zip(fed, stored, strict=True):
        assert np.array_equal(each["images"][0], image)
    where = ["--data", str(toy), "--split", "val2017", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["eval", str(path), *where, "data.workers=0"])
    assert done.exit_code == 0, done.output


def test_runtimes_run_it_alike(fused: Make) -> None:
    done = verify_file(fused(), Asked(), say=lambda text: None)
    rows = {row.runtime: row for row in done.rows}
    assert rows["onnxruntime"].within(1e-4)
    done.require()


def test_openvino_makes_the_same_pixels(exported: Make) -> None:
    pytest.importorskip("openvino")
    seen = config(**KEPT)
    path = exported()
    take_photos(path, seen)
    model = onnx.load(str(path))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("photo_pixels"))
    start = path.with_name("start.onnx")
    onnx.save(onnx.utils.Extractor(model).extract_model(["images"], ["photo_pixels"]), str(start))
    photo = np.random.default_rng(0).integers(0, 256, (90, 131, 3), np.uint8)
    found = []
    for name in ("onnxruntime", "openvino, float32"):
        runtime = next(each for each in RUNTIMES if each.name == name)
        with Served(runtime, start) as served:
            found.append(served.run({"images": photo[None]})["photo_pixels"])
    assert np.abs(found[0] - found[1]).max() * 255 * 0.23 < 1.01
    assert found[0].shape[2:] == (60, 87)
    assert torch.from_numpy(found[0]).isfinite().all()
