"""An adapter of another distribution: one file and one line, found by every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ADAPTER = '''
from importlib.metadata import version
import numpy as np
from teacher_infer.adapters.info import AdapterInfo, Option
from teacher_infer.adapters.protocol import Detections


class Corners:
    """One box an image, in its upper left quarter."""

    class_names = ("person",)
    licence = "MIT"
    nms_iou = None
    versions = {"corners": version("corners")}
    runtime = {"nms": "none"}

    def detect(self, images):
        boxes = [np.array([[0, 0, one.shape[1] / 2, one.shape[0] / 2]]) for one in images]
        return [Detections(box, np.array([0.9]), np.array([0])) for box in boxes]


ADAPTER = AdapterInfo(
    name="corners",
    summary="the upper left quarter",
    example="c=corners:here,words=words.txt",
    licence="MIT",
    load=lambda spec: Corners(),
    weights_files=lambda spec: [],
    options={"words": Option("a file", file="file of words")},
    libraries=("corners",),
    isolated=True,
    uses_torch=False,
)
'''
LINE = "[teach_detr.adapters]\ncorners = corners:ADAPTER\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the path that holds the installed distribution `corners`."""
    folder = tmp_path / "site"
    (folder / "corners-1.0.dist-info").mkdir(parents=True)
    (folder / "corners.py").write_text(ADAPTER)
    about = "Metadata-Version: 2.1\nName: corners\nVersion: 1.0\n"
    (folder / "corners-1.0.dist-info" / "METADATA").write_text(about)
    (folder / "corners-1.0.dist-info" / "entry_points.txt").write_text(LINE)
    return folder


@pytest.fixture
def teacher_infer(site: Path, tmp_path: Path):
    """teacher_infer(*words) -> exit code, stdout, stderr of the command in a process of its own."""

    def run(*words: object) -> tuple[int, str, str]:
        path = os.pathsep.join([str(site), *(one for one in sys.path if one)])
        done = subprocess.run(
            [sys.executable, "-m", "teacher_infer.cli", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.slow
def test_it_is_listed_labels_and_its_files_make_the_teacher(
    teacher_infer, make_folder, tmp_path: Path
) -> None:
    code, out, err = teacher_infer("list", "corners", "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert (row["licence"], row["installed"]) == ("MIT", {"corners": "1.0"})

    (tmp_path / "words.txt").write_text("one")
    asked = (
        *("--data", make_folder(3), "--split", "train", "--store", tmp_path / "store"),
        *("--teacher", "c=corners:here,words=words.txt"),
    )
    code, out, err = teacher_infer("run", "--local", "--json", *asked)
    assert code == 0, err
    (row,) = json.loads(out)["teachers"]
    assert (row["state"], row["images_labelled"], row["boxes"]) == ("done", 3, 3)

    (tmp_path / "words.txt").write_text("another")
    code, _, err = teacher_infer("run", "--local", *asked)
    assert code != 0
    assert "weights_sha256" in err


def test_a_module_that_cannot_be_imported_is_named(teacher_infer, site: Path) -> None:
    (site / "corners.py").write_text("import no_such_library_at_all")
    code, _, err = teacher_infer("list", "corners")
    assert code != 0
    assert "the adapter 'corners' of corners can't be imported from corners:ADAPTER" in err
    assert "no_such_library_at_all" in err
    assert "Traceback" not in err


def test_a_name_that_is_taken_is_refused(teacher_infer, site: Path) -> None:
    entry = site / "corners-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[teach_detr.adapters]\nonnx = corners:ADAPTER\n")
    code, _, err = teacher_infer("list")
    assert code != 0
    assert "corners brings an adapter 'onnx'" in err
