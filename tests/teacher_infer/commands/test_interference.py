"""Interference from outside, in processes of their own."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from box_store.store.reader import read_boxes
from box_store.store.store import BoxStore

from .conftest import statuses

# one image takes 50 ms, so that there is time to interfere
SLOW_MAIN = """
import signal, time
from teacher_infer.workers import worker
# tests started in the background of a shell hand on an ignored Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
load_image = worker.load_image
def slow(task):
    time.sleep(0.05)
    return load_image(task)
worker.load_image = slow
from teacher_infer.cli import main
main()
"""


def start_slowly(*arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def wait_for_units(store: Path, n_units: int) -> None:
    folder = store / "images" / "teacher=tiny"
    deadline = time.monotonic() + 60
    while len(list(folder.glob("part-*.parquet"))) < n_units:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_kill_9_loses_the_unit_in_flight_and_nothing_else(cli, make_folder, request_of, store):
    request = [*request_of(make_folder(40), ",batch_size=2"), "--unit-size", "4"]
    process = start_slowly("run", "--local", *request)
    wait_for_units(store, 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    folder = store / "images" / "teacher=tiny"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    assert 2 <= len(before) < 10
    code, _, _ = cli("run", "--local", *request)
    assert code == 0
    assert statuses(store) == dict.fromkeys(range(1, 41), "ok")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    assert before.items() <= after.items()
    assert len(after) == 10


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_what_is_safe_and_how_to_go_on(make_folder, request_of, store, number):
    request = [*request_of(make_folder(40), ",batch_size=2"), "--unit-size", "4"]
    process = start_slowly("run", "--local", *request)
    wait_for_units(store, 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = len(BoxStore.open(store).units_done("tiny"))
    assert f"tiny: {done} of 10 units are in the store" in err
    assert "Run the same command again to go on" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_two_runs_of_one_store_at_once_leave_every_image_once(make_folder, request_of, store):
    request = [*request_of(make_folder(24), ",batch_size=2"), "--unit-size", "4"]
    processes = [start_slowly("run", "--local", *request) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert statuses(store) == dict.fromkeys(range(1, 25), "ok")
    assert read_boxes(BoxStore.open(store), "tiny").num_rows == 24
    assert not list(store.rglob("*.tmp"))


@pytest.mark.slow
def test_a_disk_that_takes_no_more_ends_a_run_with_a_sentence(make_folder, request_of, store):
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))

    request = request_of(make_folder(8))
    process = start_slowly("run", "--local", *request, preexec_fn=limit_files)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "disk is full" in err
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert BoxStore.open(store).units_done("tiny") == set()
    assert not list(store.rglob("*.tmp"))
