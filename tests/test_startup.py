"""What starts fast: no help, query, check, status or doctor loads torch: seconds and a gigabyte."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from box_store import Boxes, BoxStore, DatasetInfo, ImageRow
from box_store.coco.categories80 import COCO_CATEGORIES
from box_store.store.records import TeacherRecord, image_ids_sha256

PROGRAMS = ("teach_detr", "student_train", "teacher_infer")
# of a machine where imports are slow; a help takes half of it
HEAVY = ("torch", "timm", "transformers", "mmdet", "ultralytics", "ray", "matplotlib")

WALK = """
import sys
import typer.main
from typer.testing import CliRunner
from {program}.cli import app

group = typer.main.get_command(app)
for name in ("", *group.commands):
    found = CliRunner().invoke(app, [*filter(None, [name]), "--help"])
    assert found.exit_code == 0, (name, found.output)
    assert len(found.output) > 100, name
print(len(group.commands), sorted(set({heavy!r}) & sys.modules.keys()))
"""

RUN = """
import sys
from {program}.cli import main
sys.argv = ["program", *{arguments!r}]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
print("loaded", sorted(set({heavy!r}) & sys.modules.keys()))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_help_of_any_command_loads_what_is_heavy(program):
    count, loaded = run(WALK.format(program=program, heavy=HEAVY)).split(" ", 1)
    assert int(count) >= 7
    assert loaded == "[]"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two boxes of one teacher."""
    made = BoxStore.create(tmp_path / "store", COCO_CATEGORIES, DatasetInfo("two", "", 1))
    made.register(
        TeacherRecord(
            name="one",
            adapter="test",
            model="none",
            weights_sha256="",
            licence="MIT",
            class_map={},
            options={},
            image_ids_sha256=image_ids_sha256([1]),
            unit_size=8,
            n_images=1,
            n_units=1,
        )
    )
    boxes = Boxes(
        np.array([[0, 0, 9, 9], [5, 5, 20, 20]], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([1, 2], np.int32),
        32,
        32,
    )
    made.write_unit("one", 0, [ImageRow(1, "one.jpg", 32, 32, boxes)])
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("teach_detr", ["doctor", "--json"]),
        ("teach_detr", ["sql", "STORE", "SELECT count(*) FROM boxes"]),
        ("teach_detr", ["check", "STORE"]),
        ("teacher_infer", ["status", "STORE"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_questions_load_nothing_heavy(program, arguments, store):
    if arguments[0] == "sql":
        pytest.importorskip("duckdb")
    filled = [str(store) if part == "STORE" else part for part in arguments]
    assert run(RUN.format(program=program, arguments=filled, heavy=HEAVY)) == "loaded []"
