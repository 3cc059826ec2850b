"""What clusters do to a run, with real processes: signals to a whole group, killed loaders, reads
that never return, no shared memory. Each ends in a saved state and a sentence.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from student_train.runs.states import StateFolder
from tests.forked import Forked
from tests.tally import Tally

pytestmark = [pytest.mark.slow, pytest.mark.faults]
SAVED = "state saved, and a sentence"


@pytest.fixture
def dead_mount(toy: Path, tmp_path: Path) -> Path:
    """The data set, all of whose images never answer."""
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    for path in (data / "train2017").iterdir():
        path.unlink()
        os.mkfifo(path)
    return data


def command(data: Path, out: Path, workers: int) -> list[str]:
    words = ["train", "--preset", "dino-micro", "--teachers", "none", "--data", str(data)]
    settings = {
        "batch_size": "2",
        "epochs": "500",
        "eval_every": "0",
        "save_every": "100000",
        "log_every": "1",
        "model.n_queries": "8",
        "model.top_k": "8",
        "data.workers": str(workers),
        "device": "cpu",
    }
    words += ["--out", str(out), *(f"{key}={value}" for key, value in settings.items())]
    return words


@contextlib.contextmanager
def training(data: Path, out: Path, workers: int) -> Iterator[Forked]:
    """A run in a process group of its own."""
    with Forked("student_train.cli", command(data, out, workers)) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def children(process: Forked) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(each) for each in path.read_text().split()]


def until(what: str, process: Forked, done: object) -> None:
    end = time.monotonic() + 120
    while not done():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


def steps_done(out: Path) -> bool:
    path = out / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def waits_for_a_pipe(process: Forked) -> bool:
    """Whether it, or each of its loaders, is opening a pipe that nobody writes."""

    def waits(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return any(
                "fifo" in each.read_text() or "wait_for_partner" in each.read_text()
                for each in Path(f"/proc/{pid}/task").glob("*/wchan")
            )
        return False

    return any(waits(each) for each in (process.pid, *children(process)))


def test_a_signal_to_the_whole_group_leaves_a_state(toy: Path, tmp_path: Path, tally: Tally):
    with training(toy, tmp_path / "run", 2) as process:
        until("a step", process, lambda: steps_done(tmp_path / "run"))
        os.killpg(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert "--resume" in printed
    assert "Traceback" not in printed
    assert StateFolder(tmp_path / "run/checkpoints").load()[0]["position"]["step"] >= 1
    tally.add("SIGTERM to a training and its loaders", SAVED)


def test_loaders_that_get_the_signal_first_do_not_cost_the_state(
    toy: Path, tmp_path: Path, tally: Tally
):
    with training(toy, tmp_path / "run", 2) as process:
        until("a step", process, lambda: steps_done(tmp_path / "run"))
        for loader in children(process):
            os.kill(loader, signal.SIGTERM)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert StateFolder(tmp_path / "run/checkpoints").newest() is not None
    tally.add("SIGTERM to a training and its loaders", SAVED)


def test_a_killed_loader_leaves_a_state_and_a_sentence(toy: Path, tmp_path: Path, tally: Tally):
    with training(toy, tmp_path / "run", 2) as process:
        until("a step", process, lambda: steps_done(tmp_path / "run"))
        os.kill(children(process)[0], signal.SIGKILL)
        printed, _ = process.communicate(timeout=90)
    assert process.returncode == 1, printed
    text = " ".join(printed.split())
    assert all(word in text for word in ("memory", "data.workers", "--resume", "is saved")), text
    assert "Traceback" not in text
    assert StateFolder(tmp_path / "run/checkpoints").load()[0]["position"]["step"] >= 1
    tally.add("SIGKILL of a loader", SAVED)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_ends_the_wait_for_data_that_never_come(
    dead_mount: Path, tmp_path: Path, tally: Tally, workers: int
):
    with training(dead_mount, tmp_path / "run", workers) as process:
        until("the wait", process, lambda: (tmp_path / "run/config.json").exists())
        until("the wait", process, lambda: waits_for_a_pipe(process))
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143, printed
    assert time.monotonic() - begun < 30
    assert StateFolder(tmp_path / "run/checkpoints").load()[0]["position"]["step"] == 0
    tally.add("SIGTERM to a training that waits for data", SAVED)


def test_full_shared_memory_is_said_and_ends_the_run(toy: Path, tmp_path: Path, tally: Tally):
    impatient = (
        "from student_train.data import loader; loader._PATIENCE = 1.0; "
        "from student_train.cli import main; main()"
    )
    words = [sys.executable, "-c", impatient, *command(toy, tmp_path / "run", 2)]
    inner = f"mount -t tmpfs -o size=64k none /dev/shm && exec {shlex.join(words)}"
    space = ["unshare", "-rm", "sh", "-c"]
    probe = "mount -t tmpfs -o size=64k none /dev/shm"
    if (
        shutil.which("unshare") is None
        or subprocess.run([*space, probe], capture_output=True, check=False).returncode
    ):
        pytest.skip("user namespaces are not allowed here")
    done = subprocess.run([*space, inner], capture_output=True, text=True, timeout=150, check=False)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1, text
    assert "is full" in text
    assert "--shm-size" in text
    assert "data.workers=0" in text
    assert "Traceback" not in text
    tally.add("shared memory that is full", "a sentence")
