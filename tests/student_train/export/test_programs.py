"""What `export --onnx` refuses before the work, what each runtime sets, and what files tell."""

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from box_store.categories import Categories, Category, ClassSpace
from box_store.errors import TeachDetrError, UsageError
from student_train.cli import app
from student_train.errors import ExportError
from student_train.export import Exported, describe, precision, programs
from student_train.export.card import Lineage
from student_train.export.precision import data_of
from student_train.export.program import DYNAMIC, Example, Program
from student_train.export.programs import Programs
from student_train.export.runtimes import RUNTIMES
from student_train.export.targets import TARGETS, target_of
from student_train.export.verify import Row, verify
from student_train.export.verifying import Asked, Verified, archive_notes, verify_file
from student_train.presets import load_preset
from student_train.runs.exported import CARD, load_exported
from student_train.runs.run_folder import RunRecord, class_space_to_plain
from student_train.runs.trained import TrainedStudent
from student_train.settings.sizes import parse_size

Make = Callable[..., Path]


def refusal(*arguments: str) -> str:
    """What the command says; it must end before a run is looked for."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code != 0
    assert isinstance(done.exception, TeachDetrError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--onnx", "x.onnx", "--for", "tensorr"],
            "--for is one of .* got 'tensorr'. Did you mean",
        ),
        (["--onnx", "x.onnx", "--for", ""], "--for is one of onnxruntime, .* got ''"),
        (["--onnx", "x.onnx", "--dynamic", "all"], "--dynamic is one of size, batch, none"),
        (["--onnx", "x.onnx", "--sampler", "grid"], "--sampler is one of gather, grid_sample"),
        (["--onnx", "x.onnx", "--size", "640"], "HEIGHTxWIDTH of at least 32x32, got '640'"),
        (["--onnx", "x.onnx", "--size", "16x640"], "at least 32x32, got '16x640'"),
        (["--onnx", "x.onnx", "--size", "-64x64"], "at least 32x32, got '-64x64'"),
        (["--onnx", "x.onnx", "--size", "٣٢x64"], "at least 32x32"),
        (["--onnx", "x.onnx", "--half", "--int8", "d"], "two precisions: choose one"),
        (["--onnx", "x.onnx", "--int8", "d", "--data", "e"], "two data sets for one measurement"),
        (["--onnx", "x.onnx", "--for", "coreml", "--half"], "coreml takes float32"),
        (["--torch-export", "x.pt2", "--half"], "are of ONNX files: give --onnx FILE too"),
        (["--torch-export", "x.pt2", "--fused-input"], "are of ONNX files"),
        (["--official", "x.pth", "--for", "web"], "are of programs: give --onnx FILE too"),
        (["--official", "x.pth", "--fused-input"], "are of programs"),
        (["--onnx", "x.pb"], r"x.pb: expected a name that ends in .onnx"),
        (["--torch-export", "x.onnx"], r"x.onnx: expected a name that ends in .pt2"),
        (["--onnx", "/proc/x/y.onnx"], "/proc/x"),
        (["--onnx", "x.onnx", "--tolerance", "0"], "--tolerance is more than 0, got 0"),
        (["--onnx", "x.onnx", "--tolerance", "nan"], "--tolerance is more than 0, got nan"),
        (["--onnx", "x.onnx", "--limit", "-1"], "--limit is at least 1, or 0 for all"),
        ([], "nothing to write"),
    ],
)
def test_export_refuses_before_the_work(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal("export", "no-such-run", *arguments)
    assert re.search(words, said), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.onnx", "--threads", "0"], "--threads is at least 1, got 0"),
        (["x.onnx", "--limit", "0"], "--limit is at least 1, got 0"),
        (["x.onnx", "--tolerance", "-1"], "--tolerance is more than 0"),
        (["x.onnx", "--size", "64xx"], "HEIGHTxWIDTH"),
        (["x.onnx"], "no file at x.onnx"),
        (["x.onnx", "--run", "y.onnx"], "y.onnx is an exported file, which has no network"),
    ],
)
def test_verify_refuses_before_the_work(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal("verify", *arguments)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    assert "is a folder: expected" in refusal("export", "run", "--onnx", str(tmp_path / "x.onnx"))


def test_sizes() -> None:
    assert parse_size("64x80") == parse_size("64X80") == (64, 80)
    with pytest.raises(UsageError):
        parse_size("0x80")


def asked(**options: Any) -> Programs:
    given: dict[str, Any] = dict.fromkeys(("torch_export", "runtime", "size", "dynamic", "sampler"))
    given |= {"onnx": Path("x.onnx"), "half": False, "int8": None, "data": None, "split": None}
    given |= {"limit": 10, "fused_input": False, "tolerance": 1e-3, "verify": True}
    made = Programs.asked(**given | options)
    assert made is not None
    return made


def test_each_runtime_sets_what_is_not_said(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    dynamic = {name: asked(runtime=name).dynamic for name in TARGETS}
    assert dynamic == {
        "onnxruntime": "size", "openvino": "size", "tensorrt": "batch", "web": "none",
        "coreml": "none",
    }  # fmt: skip
    assert asked().dynamic == "size"
    assert asked(runtime="tensorrt").target.symmetric
    assert asked(runtime="web", dynamic="size").dynamic == "size"
    assert asked(runtime="web", sampler="grid_sample").sampler == "grid_sample"
    notes = asked(runtime="openvino").notes
    assert json.loads(notes["openvino"]) == {"INFERENCE_PRECISION_HINT": "f32"}
    assert notes["for"] == "openvino"
    assert target_of(None) is TARGETS["onnxruntime"]


def student(data: Path | None = None) -> TrainedStudent:
    config = load_preset("dino-micro")
    config = replace(config, data=replace(config.data, root=data))
    return TrainedStudent(Nothing(), config, load_space(), "/home/someone/run")  # type: ignore[arg-type]


def load_space() -> Any:
    return ClassSpace("contiguous", Categories((Category(2, "cat"), Category(5, "dog"))))


class Nothing:
    """A network without weights."""

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_fewer_bits_need_data(tmp_path: Path) -> None:
    assert data_of(student(), tmp_path) == tmp_path
    assert data_of(student(tmp_path), None) == tmp_path
    with pytest.raises(UsageError, match=r"give --data DATA .* not recorded\)"):
        data_of(student(), None)
    with pytest.raises(UsageError, match=r"gone, which is not here\)"):
        data_of(student(tmp_path / "gone"), None)


def record(**content: Any) -> RunRecord:
    told: dict[str, Any] = {"versions": {}, "fingerprints": {}, "teachers": {}} | content
    return RunRecord(resolved=None, class_space=load_space(), **told)  # type: ignore[arg-type]


def test_a_file_tells_whose_boxes_it_learned_from_and_no_paths(tmp_path: Path) -> None:
    mine = student(tmp_path / "cells")
    fingerprints = {"boxes": "abc", "train_annotations": "def"}
    of = record(fingerprints=fingerprints, teachers={"yolo": "AGPL-3.0"})
    notes = Lineage.of(mine, of).notes("mit")
    assert json.loads(notes["teachers"]) == {"yolo": "AGPL-3.0"}
    assert notes["licence"] == "mit"
    assert notes["trained_on"].startswith("cells, split ")
    assert notes["sha256 of the annotations"] == "def"
    assert Lineage.of(mine, record(fingerprints=fingerprints)).notes(None)["teachers"] == (
        "not recorded"
    )
    assert Lineage.of(mine, record()).notes(None)["teachers"] == "{}"
    assert Lineage.of(mine, None).notes(None)["teachers"] == "not recorded"
    program: Any = Program(None, "batch", "")  # type: ignore[arg-type]
    about = describe(mine, program, Example.make(2, 32, 64), "gather") | notes
    assert json.loads(about["shape"]) == [None, 3, 32, 64]
    assert not any(str(tmp_path.parent) in each or "/home" in each for each in about.values())


@pytest.mark.parametrize("dynamic", DYNAMIC)
def test_what_is_free_is_told(dynamic: Any) -> None:
    program: Any = Program(None, dynamic, "")  # type: ignore[arg-type]
    shape = json.loads(describe(student(), program, Example.make(1, 32, 64), "gather")["shape"])
    free = {"size": [None, 3, None, None], "batch": [None, 3, 32, 64], "none": [1, 3, 32, 64]}
    assert shape == free[dynamic]


def test_fewer_bits_are_judged_by_ap() -> None:
    exact = Row("a", ran=True, score=0.1)
    assert not exact.within(1e-3)
    assert exact.says(1e-3) == "something else"
    lower = replace(exact, lower=True)
    assert lower.within(1e-3)
    assert lower.says(1e-3) == "fewer bits"
    kept, lost = replace(lower, lost=0.9), replace(lower, lost=1.1)
    assert (kept.within(1e-3), kept.says(1e-3)) == (True, "keeps AP")
    assert (lost.within(1e-3), lost.says(1e-3)) == (False, "loses AP")
    assert not replace(lower, lost=float("nan")).within(1e-3)
    assert not replace(lower, failure="broken").within(1e-3)
    assert not replace(lower, ran=False).within(1e-3)
    done = Verified(Path("x"), [kept, lost], "the run", [], 1e-3)
    with pytest.raises(TeachDetrError, match=r"x computes something else in a: more than 0\.001"):
        done.require()
    with pytest.raises(TeachDetrError, match="x ran nowhere"):
        Verified(Path("x"), [Row("a", missing=True)], "", [], 1e-3).require()


def test_ap_is_compared_with_what_it_should_be(
    network: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("student_train.export.runtimes.RUNTIMES", (RUNTIMES[0],))
    batch = {"images": np.zeros((1, 3, 16, 16), np.float32)}
    told = iter([0.5, 0.46])
    (row,) = verify(network(), [batch], score=lambda served: next(told), lower=True)
    assert row.lost == pytest.approx(4)
    (row,) = verify(network(), [batch], score=lambda served: 0.46, expected_ap=0.465, lower=True)
    assert row.lost == pytest.approx(0.5)


def test_archives_of_others_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(ExportError, match=r"is no archive of torch\.export"):
        archive_notes(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data", "")
    assert archive_notes(path) == {}
    with pytest.raises(ExportError, match="does not say which student it is"):
        verify_file(path, Asked(size=(32, 32)), say=lambda text: None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/extra/teach_detr.json", '{"a": "b"}')
    assert archive_notes(path) == {"a": "b"}


def test_a_file_that_another_tool_changed_is_refused(exported: Make) -> None:
    onnx = pytest.importorskip("onnx")
    path = exported()
    model = onnx.load(str(path))
    kept = [one for one in model.graph.output if one.name != "boxes"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="but has no boxes: it was changed by another tool"):
        load_exported(path)


def test_files_are_run_on_the_run_s_own_split_and_ap_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [Exported(tmp_path / name, "", "size", "") for name in ("x.pt2", "x.onnx")]
    opened, seen = [], []

    def run(path: Path, asked: Asked, *, expected_ap: float | None, **_: Any) -> Verified:
        seen.append((asked.split, expected_ap))
        return Verified(path, [], "the run", [], 1e-3, 0.3)

    monkeypatch.setattr(programs, "export_student", lambda *_, **__: files)
    monkeypatch.setattr(programs, "open_validation", lambda *given: opened.append(given[2]))
    monkeypatch.setattr(programs, "verify_file", run)
    mine = student(tmp_path)
    mine = replace(
        mine, config=replace(mine.config, data=replace(mine.config.data, val_split="test"))
    )
    wanted = asked(onnx=tmp_path / "x.onnx", data=tmp_path)
    assert len(list(wanted.write(mine, {}, lambda text: None))) == 2
    assert opened == ["test"]
    assert seen == [("test", None), ("test", 0.3)]


def test_the_whole_way_of_fewer_bits_and_photos(
    exported: Make, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    table = json.loads((toy / "annotations" / "instances_val2017.json").read_text())
    space = ClassSpace(
        "contiguous",
        Categories(tuple(Category(each["id"], each["name"]) for each in table["categories"])),
    )
    path = exported()
    model = onnx.load(str(path))
    for entry in model.metadata_props:
        if entry.key == CARD:
            told = json.loads(entry.value) | {"classes": class_space_to_plain(space)}
            entry.value = json.dumps(told)
    onnx.save(model, str(path))
    written = Exported(path, "ONNX", "size", "")
    monkeypatch.setattr(programs, "export_student", lambda *_, **__: [written])
    monkeypatch.setattr("student_train.export.runtimes.RUNTIMES", (RUNTIMES[0],))
    mine = replace(student(toy), class_space=space)
    wanted = asked(onnx=path, half=True, fused_input=True, split="val2017", limit=3)
    said: list[str] = []
    (made,) = wanted.write(mine, {}, said.append)
    assert made.exported.format == "ONNX, float16, everything, takes photos"
    assert any("AP" in line and "of the size" in line for line in said)
    assert made.remarks[0].startswith("photos    pixels made in the file are within")
    assert made.verified is not None
    made.verified.require()
    (row,) = made.verified.rows
    assert row.lower
    assert row.lost == pytest.approx(0, abs=1e-6)
    about = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert (about["precision"], about["lowered"]) == ("float16", "everything")
    assert load_exported(path).resizes
    # as if more was lost than may be, whatever is tried
    strict = partial(precision.keep_ap, most_lost=-101.0)
    monkeypatch.setattr(precision, "keep_ap", strict)
    with pytest.raises(ExportError, match="the file was not made"):
        list(asked(onnx=path, half=True, split="val2017").write(mine, {}, said.append))
    assert not path.exists()
