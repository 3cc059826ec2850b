"""A student and its files are measured in turns, and what cannot run says why."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from student_train.bench import exported as bench
from student_train.bench.students import random_student
from student_train.cli import app
from student_train.export.runtimes import RUNTIMES, Runtime
from student_train.presets import load_preset

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The export is a small network in a student's place; no OpenVINO, no transformers."""
    nodes = [
        onnx.helper.make_node("Conv", ["images", "w"], ["scores"], name="c"),
        onnx.helper.make_node("Shape", ["mask"], ["s"]),
    ]
    kind, info = onnx.TensorProto, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "made",
        [info("images", kind.FLOAT, [1, 3, 64, 64]), info("mask", kind.BOOL, [1, 64, 64])],
        [info("scores", kind.FLOAT, [1, 4, 64, 64]), info("s", kind.INT64, [3])],
        [onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(model, str(tmp_path / "small.onnx"))

    def write(student: Any, size: Any, *, onnx: Path, **_: object) -> None:
        shutil.copy(tmp_path / "small.onnx", onnx)

    missing = Runtime("missing", "no_such_package", "", "pip install it")
    others = [each for each in RUNTIMES if not each.name.startswith("openvino")]
    gone = [
        Runtime(name, "no_such_package", ".onnx", "pip install it")
        for name in ("openvino, float32", "openvino")
    ]
    monkeypatch.setattr(bench, "export_student", write)
    monkeypatch.setattr(bench, "TRANSFORMERS", missing)
    monkeypatch.setattr(bench, "RUNTIMES", (*others, *gone))


def test_every_way_is_a_row(quick: None, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    arguments = ["--preset", "dino-micro", "--size", "64x64", "--steps", "3", "--out", str(out)]
    done = CliRunner().invoke(app, ["bench", "--export", *arguments])
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(out.read_text())}
    assert next(iter(rows)) == bench.EAGER
    assert rows[bench.EAGER]["faster"] == [1, 1, 1]
    for name in ("onnxruntime, float32", "onnxruntime, float16", "onnxruntime, 8 bits"):
        assert rows[name]["ms"] > 0
        assert rows[name]["peak_mib"] > 10
        assert rows[name]["version"]
    for name in ("openvino, float32", "openvino, 8 bits", "transformers, eager"):
        assert rows[name]["problem"] == "pip install it"
        assert rows[name]["ms"] is None
    assert rows[bench.EAGER]["height"] == 64


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--export", "--data"], "are four measurements"),
        (["--run", "x"], "--run belongs to --export"),
        (["--export", "--run", "x", "--preset", "y"], "two students: choose one"),
        (["--export", "--steps", "0"], "--steps is at least 1, got 0"),
        (["--export", "--preset", "dino-micro", "--size", "8x8"], "at least 32x32, got '8x8'"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert done.exit_code != 0
    assert words in str(done.exception)


def test_random_students_have_no_zeros_to_hide_behind() -> None:
    student = random_student(load_preset("dino-micro"))
    for value in student.model.parameters():
        assert value.numel() == 1 or value.std() > 0
    assert student.class_space.n_classes == student.config.model.n_classes
