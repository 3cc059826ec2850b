"""`teacher-infer list` teaches."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from teacher_infer.adapters.registry import adapter_info
from teacher_infer.commands import listing as cli_list
from teacher_infer.teachers.parsing import load_teachers, parse_teacher


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


@pytest.mark.slow
def test_the_console_script_is_installed_and_helps():
    script = Path(sys.executable).with_name("teacher-infer")
    environment = os.environ | {"COLUMNS": "100"}
    helped = subprocess.run(
        [script, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    for command in ("plan", "run", "list", "status", "import", "export"):
        assert command in helped.stdout
