"""Real processes that crash, hang and are killed: what is in the store afterwards.

TEACH_DETR_LONG=1 makes the chaos longer: more images, more teachers, more kills.
"""

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from box_store.check import check_store
from box_store.store.reader import read_boxes, read_images
from box_store.store.store import BoxStore

if not sys.platform.startswith("linux"):  # pragma: no cover
    pytest.skip("finds the workers in /proc", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.faults]

_SCRIPT = Path(__file__).with_name("faulty.py")
_spec = importlib.util.spec_from_file_location("faulty", _SCRIPT)
assert _spec is not None
assert _spec.loader is not None
faulty = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faulty)

LONG = bool(os.environ.get("TEACH_DETR_LONG"))
N_IMAGES, N_TEACHERS, SECONDS = (2000, 2, 0.004) if LONG else (400, 1, 0.004)
# seconds between two kills
PAUSES = (0.5, 3.0) if LONG else (0.3, 1.2)


def write_model(path: Path, **document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def arguments(data: Path, store: Path, teachers: dict[str, str], unit_size: int) -> list[str]:
    base = ["run", "--isolate", "--data", str(data), "--split", "train", "--store", str(store)]
    named = [f"--teacher={name}=faulty:{text}" for name, text in teachers.items()]
    return [*base, *named, "--unit-size", str(unit_size), "--json"]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    with (folder / "stderr.txt").open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, str(_SCRIPT), *command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )


def content(store: Path, name: str) -> tuple[list[Any], list[Any]]:
    """All rows of a teacher in the order of their images, without the times that they took."""
    opened = BoxStore.open(store)
    boxes = read_boxes(opened, name).to_pylist()
    images = [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_images(opened, name).to_pylist()
    ]
    return (
        sorted(images, key=lambda row: row["image_id"]),
        sorted(boxes, key=lambda row: (row["image_id"], row["rank"])),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty.make_folder(tmp_path_factory.mktemp("chaos") / "coco", N_IMAGES)


def test_images_that_crash_or_hang_cost_nothing_but_themselves(tmp_path, tally):
    data = faulty.make_folder(tmp_path / "coco", 40)
    faults = {"5": "exit", "13": "segfault", "22": "raise", "33": "hang"}
    model = write_model(tmp_path / "model.json", faults=faults)
    teachers = {"tiny": f"{model},workers=2,batch_size=2,batch_timeout=1"}
    process = start(arguments(data, tmp_path / "store", teachers, 20), tmp_path)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (tmp_path / "stderr.txt").read_text()
    row = json.loads(out)["teachers"][0]
    # thrice an image: in its batch, then twice alone
    assert row["workers_lost"] == {"crash": 6, "hung": 3}
    images, _ = content(tmp_path / "store", "tiny")
    failed = [row for row in images if row["status"] != "ok"]
    bad = {row["image_id"]: (row["status"], row["error"]) for row in failed}
    assert {image_id: status for image_id, (status, _) in bad.items()} == {
        5: "worker_died",
        13: "worker_died",
        22: "predict_error",
        33: "timed_out",
    }
    tally.add("crashes and hangs of a teacher in an image", "that image has a status", len(bad))
    assert "exit code 9" in bad[5][1]
    assert "signal 11" in bad[13][1]
    assert "no answer for" in bad[33][1]


def test_a_model_that_is_never_loaded_ends_in_a_sentence(tmp_path):
    data = faulty.make_folder(tmp_path / "coco", 4)
    stuck = write_model(tmp_path / "stuck.json", loading=3600)
    sound = write_model(tmp_path / "sound.json")
    teachers = {"stuck": f"{stuck},load_timeout=1.5", "sound": str(sound)}
    process = start(arguments(data, tmp_path / "store", teachers, 4), tmp_path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    states = {row["teacher"]: row["state"] for row in json.loads(out)["teachers"]}
    assert states == {"stuck": "failed", "sound": "done"}
    said = (tmp_path / "stderr.txt").read_text()
    assert "teacher stuck: loading took longer than 1.5 s: see whether the disk" in said
    assert "Traceback" not in said


def test_random_kills_change_nothing_in_the_store(data, tmp_path, tally):
    draw = random.Random(7)
    model = write_model(tmp_path / "model.json", seconds=SECONDS, faults={"17": "raise"})
    names = [f"teacher{number}" for number in range(N_TEACHERS)]
    teachers = {
        name: f"{model},workers=2,batch_size=4,top_k={n + 4}" for n, name in enumerate(names)
    }
    calm = start(arguments(data, tmp_path / "calm", teachers, 25), tmp_path)
    calm.communicate(timeout=600)
    assert calm.returncode == 0

    command = arguments(data, tmp_path / "rough", teachers, 25)
    kills = {"driver": 0, "worker": 0}
    driver = start(command, tmp_path)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.communicate(timeout=draw.uniform(*PAUSES))
        if driver.returncode == 0:
            break
        if driver.returncode is not None:
            assert driver.returncode == -signal.SIGKILL, (tmp_path / "stderr.txt").read_text()
            driver = start(command, tmp_path)
            # time enough to load, or nothing would ever be done
            time.sleep(1.0)
            continue
        unlucky = faulty.victim(driver.pid, draw, p_driver=0.2)
        if unlucky is not None:
            kills["driver" if unlucky == driver.pid else "worker"] += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(unlucky, signal.SIGKILL)
    assert kills["driver"] + kills["worker"] > 1
    for name in names:
        assert content(tmp_path / "rough", name) == content(tmp_path / "calm", name)
    for victim, n in kills.items():
        tally.add(f"SIGKILL of a {victim} of teachers", "store equal, row by row", n)
    images, boxes = content(tmp_path / "rough", names[0])
    assert [row["image_id"] for row in images] == list(range(1, N_IMAGES + 1))
    assert len({(row["image_id"], row["rank"]) for row in boxes}) == len(boxes) > N_IMAGES
    assert not check_store(tmp_path / "rough").problems
