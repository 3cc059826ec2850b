"""A file is run where it runs, and what differs is told."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from student_train.cli import app
from student_train.errors import ExportError
from student_train.export import verifying
from student_train.export.layers import first_difference
from student_train.export.runtimes import REFERENCE, RUNTIMES, Runtime, Served
from student_train.export.verify import compare, verify

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., Path]
BATCH = {"images": np.random.default_rng(1).random((2, 3, 16, 16), np.float32)}


class Scaled(Runtime):
    """onnxruntime with the second convolution's weights a tenth too large."""

    def command(self, path: Path, threads: int) -> list[str]:
        """As `Runtime.command`."""
        model = onnx.load(str(path))
        for weight in model.graph.initializer:
            if weight.name == "w2":
                value = onnx.numpy_helper.to_array(weight)
                weight.CopyFrom(onnx.numpy_helper.from_array(1.1 * value, "w2"))
        other = path.parent / "scaled.onnx"
        onnx.save(model, str(other))
        return REFERENCE.command(other, threads)


WRONG = Scaled("wrong", "onnxruntime", ".onnx", "")


def test_runtimes_that_are_here_say_the_same(network: Make) -> None:
    rows = {row.runtime: row for row in verify(network(), [BATCH])}
    assert set(rows) == {each.name for each in RUNTIMES if each.reads == ".onnx"}
    assert rows["onnxruntime"].within(1e-4)
    for row in rows.values():
        assert row.missing or row.ran
        # OpenVINO by itself may compute in bfloat16
        assert row.missing or row.within(5e-2 if row.runtime == "openvino" else 1e-4)
        assert not row.ran or (row.ms > 0 and row.peak_mib > 10)


def test_what_differs_is_seen_and_its_layer_named(
    network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network()
    monkeypatch.setattr("student_train.export.runtimes.RUNTIMES", (WRONG,))
    (row,) = verify(path, [BATCH])
    assert row.ran
    assert row.box == pytest.approx(0.1, abs=0.02)
    assert not row.within(1e-3)
    layer = first_difference(path, WRONG, BATCH)
    assert layer is not None
    assert (layer.operator, layer.name, layer.at, layer.n_nodes) == ("Conv", "c2", 3, 5)
    assert first_difference(path, RUNTIMES[0], BATCH) is None


def test_the_command_fails_where_something_else_is_computed(
    network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network()
    monkeypatch.setattr("student_train.export.runtimes.RUNTIMES", (RUNTIMES[0],))
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exit_code == 0, done.output
    assert "the same" in done.output
    monkeypatch.setattr("student_train.export.runtimes.RUNTIMES", (WRONG,))
    monkeypatch.setattr(verifying, "RUNTIMES", (WRONG,))
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exit_code == 1
    assert "the first layer that differs is Conv c2 (node 3 of 5)" in done.output
    assert "computes something else in wrong" in str(done.exception)


def test_a_runtime_that_fails_says_why_in_its_words(network: Make, tmp_path: Path) -> None:
    path = network()
    with (
        pytest.raises(ExportError, match=r"onnxruntime: .*[Ii]nvalid"),
        Served(RUNTIMES[0], path) as served,
    ):
        served.run({"images": np.zeros((1, 4, 16, 16), np.float32)})
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:50])
    (row,) = (row for row in verify(broken, [BATCH], expected=[{}]) if row.runtime == "onnxruntime")
    assert not row.ran
    assert row.failure.startswith("onnxruntime: ")


def test_a_process_that_dies_is_no_answer(network: Make) -> None:
    class Dying(Runtime):
        def command(self, path: Path, threads: int) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit(7)"]

    with (
        pytest.raises(ExportError, match="dies ended with code 7"),
        Served(Dying("dies", "", ".onnx", ""), network()),
    ):
        pass


def test_outputs_of_other_shapes_or_names_are_refused() -> None:
    with pytest.raises(ExportError, match=r"expected an output a \[2\], got \{'b': \[2\]\}"):
        compare({"a": np.zeros(2)}, {"b": np.zeros(2)})
    assert compare({"a": np.zeros(2)}, {"a": np.array([0, np.nan])}).box > 1e9


@pytest.mark.parametrize("name", ["x.tflite", "x.onnx"])
def test_what_nothing_reads_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ExportError, match="no file at"):
        verifying.verify_file(path, verifying.Asked(), say=lambda text: None)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_without_its_package_onnxruntime_web_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODE_PATH", raising=False)
    web = next(each for each in RUNTIMES if each.in_node)
    assert web.missing() == "npm install onnxruntime-web here"
