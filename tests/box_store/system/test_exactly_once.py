"""Killed, doubled and starved writers, in processes of their own."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from box_store.boxes import Boxes
from box_store.check import check_store
from box_store.errors import FingerprintMismatch
from box_store.store.reader import boxes_of, read_boxes, read_images
from box_store.store.store import BoxStore
from tests.tally import Tally

pytestmark = pytest.mark.faults
KILLED = "SIGKILL of a writer of boxes"

# writes every unit that is not done; dies by SIGKILL at the KILL_AT-th step of the disk, if given
WRITER = textwrap.dedent(
    """
    import os, resource, signal, sys
    from pathlib import Path
    import numpy as np
    from box_store.boxes import Boxes
    from box_store.categories import Categories, Category
    from box_store.store.records import (
        DatasetInfo, ImageRow, TeacherRecord, image_ids_sha256, split_units,
    )
    from box_store.errors import TeachDetrError
    from box_store.store.store import BoxStore

    steps = 0

    def dying(original):
        def step(*given, **named):
            global steps
            steps += 1
            if steps == int(os.environ.get("KILL_AT", "0")):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **named)
        return step

    ids = list(range(1, 13))
    categories = Categories((Category(1, "a"), Category(2, "b")))
    store = BoxStore.open_or_create(Path(sys.argv[1]), categories, DatasetInfo("d", "0", 12))
    licence = os.environ.get("LICENCE", "MIT")
    record = TeacherRecord(
        "t", "x", "m", "w", licence, {}, {}, image_ids_sha256(ids), 3, 12, 4
    )
    os.fsync, Path.replace, Path.unlink = (
        dying(os.fsync), dying(Path.replace), dying(Path.unlink)
    )
    if "LIMIT" in os.environ:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]),) * 2)
    try:
        store.register(record)
        for unit, part in enumerate(split_units(ids, 3)):
            if unit in store.units_done("t"):
                continue
            rows = []
            for image_id in part:
                rng = np.random.default_rng(image_id)
                corner = rng.uniform(0, 50, (image_id, 2))
                boxes = Boxes(
                    np.concatenate([corner, corner + rng.uniform(1, 40, (image_id, 2))], 1),
                    rng.uniform(0, 1, image_id), rng.integers(1, 3, image_id), 100, 100,
                )
                rows.append(ImageRow(image_id, f"{image_id}.jpg", 100, 100, boxes))
            store.write_unit("t", unit, rows)
    except TeachDetrError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)
    """
)


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, **environment: str) -> tuple[int, str]:
    process = start(folder, **environment)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def content(folder: Path) -> tuple[Any, Any]:
    store = BoxStore.open(folder)
    images = read_images(store, "t").drop_columns(["seconds"])
    return read_boxes(store, "t").to_pylist(), images.to_pylist()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    assert run(folder) == (0, "")
    assert len(content(folder)[0]) == sum(range(1, 13))
    return folder


def assert_resumes(folder: Path, undisturbed: Path) -> None:
    assert run(folder) == (0, "")
    assert content(folder) == content(undisturbed)
    report = check_store(folder)
    assert report.ok, report.problems


# one step in the middle of a boxes file, one between a unit's two files, one behind them
@pytest.mark.parametrize(
    "step", [pytest.param(5, marks=pytest.mark.slow), 13, pytest.param(26, marks=pytest.mark.slow)]
)
def test_a_killed_writer_resumes_to_the_same_content(
    tmp_path: Path, undisturbed: Path, step: int
) -> None:
    folder = tmp_path / "store"
    code, _ = run(folder, KILL_AT=str(step))
    assert code == -signal.SIGKILL
    store = BoxStore.open(folder)
    if store.teachers:
        done = store.units_done("t")
        # whatever is visible is whole
        assert read_images(store, "t").num_rows == 3 * len(done)
        assert read_boxes(store, "t").num_rows == sum(
            sum(range(3 * u + 1, 3 * u + 4)) for u in done
        )
    assert_resumes(folder, undisturbed)


@pytest.mark.slow
def test_every_step_of_the_disk_is_a_safe_place_to_die(
    tmp_path: Path, undisturbed: Path, tally: Tally
) -> None:
    # the same folder killed over and over, each life a little longer than the last
    folder = tmp_path / "store"
    for step in range(1, 60, 2):
        code, output = run(folder, KILL_AT=str(step))
        if code == 0:
            break
        assert code == -signal.SIGKILL, output
        store = BoxStore.open(folder)
        if store.teachers:
            assert read_images(store, "t").num_rows == 3 * len(store.units_done("t"))
    assert_resumes(folder, undisturbed)
    tally.add(KILLED, "store equal, row by row", step // 2)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, undisturbed: Path, tally: Tally) -> None:
    moments = random.Random(5)
    folder = tmp_path / "store"
    for _ in range(6):
        process = start(folder)
        time.sleep(moments.uniform(0.2, 1.5))
        process.kill()
        process.communicate()
    assert_resumes(folder, undisturbed)
    tally.add(KILLED, "store equal, row by row", 6)


@pytest.mark.slow
def test_two_writers_of_one_teacher_end_with_one_content(tmp_path: Path, undisturbed: Path) -> None:
    folder = tmp_path / "store"
    writers = [start(folder) for _ in range(2)]
    for writer in writers:
        output, _ = writer.communicate(timeout=120)
        assert (writer.returncode, output) == (0, "")
    assert content(folder) == content(undisturbed)
    assert check_store(folder).problems == []


def test_a_second_writer_of_another_configuration_is_refused(undisturbed: Path) -> None:
    before = content(undisturbed)
    code, output = run(undisturbed, LICENCE="GPL-3.0")
    assert code == 1
    assert output.startswith(FingerprintMismatch.__name__)
    assert '"MIT" in the store, "GPL-3.0" asked for' in output
    assert content(undisturbed) == before


@pytest.mark.slow
def test_a_file_that_the_disk_cannot_take_is_not_half_visible(
    tmp_path: Path, undisturbed: Path
) -> None:
    # the record fits below the limit, the unit's files do not
    folder = tmp_path / "store"
    code, output = run(folder, LIMIT="1500")
    assert code == 1
    assert "unit 0 of teacher t is not stored" in output
    assert "Traceback" not in output
    leftovers = [p for p in folder.rglob("part-*")] + [p for p in folder.rglob("*.tmp")]
    assert leftovers == []
    assert_resumes(folder, undisturbed)


def test_one_image_read_back_is_what_was_written(undisturbed: Path) -> None:
    found = boxes_of(BoxStore.open(undisturbed), "t", 5)
    assert isinstance(found, Boxes)
    assert len(found) == 5
