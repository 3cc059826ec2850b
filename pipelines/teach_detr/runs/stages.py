"""Stages of long work: each a public command in its own process, passed over once it is done."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from box_store.errors import TeachDetrError
from student_train.evaluation.coco_metrics import METRIC_NAMES
from student_train.machine.interrupt import was_stopped
from student_train.runs.run_folder import PATIENCE_S

_MODULES = {
    "teacher-infer": "teacher_infer.cli",
    "student-train": "student_train.cli",
    "teach-detr": "teach_detr.cli",
}


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class StageError(TeachDetrError):
    """A stage failed; what it said is on the screen already, or is in the message."""


class StageStopped(TeachDetrError):
    """Ctrl-C or SIGTERM; what was done stays."""

    exit_code = 130


class Stages:
    """Runs commands and remembers in the folder `root` which stages are done.

    Every stage has its own process: what one leaves behind is gone before the next begins, teachers
    and the trainer never compete for the cores, and the commands on the screen are the ones to try
    next.
    """

    def __init__(self, root: Path, console: Console, threads: int | None = None) -> None:
        self.root = root
        self.console = console
        self.threads = threads

    def title(self, text: str) -> None:
        """A line that says what comes next."""
        self.console.print()
        self.console.rule(text, align="left", characters="-")

    def is_done(self, stage: str, what: str = "") -> bool:
        """Whether `mark` was called for this stage with the same `what`."""
        return self.marked(stage) == what

    def marked(self, stage: str) -> str | None:
        """What `mark` was last told of this stage; None before."""
        marker = self._marker(stage)
        return marker.read_text(encoding="utf-8") if marker.exists() else None

    def mark(self, stage: str, what: str = "") -> None:
        """Remember a stage as done; `what` describes what it did, and a change undoes the mark."""
        self._marker(stage).parent.mkdir(parents=True, exist_ok=True)
        self._marker(stage).write_text(what, encoding="utf-8")

    def _marker(self, stage: str) -> Path:
        return self.root / "done" / stage

    def command(self, tool: str, *arguments: object, quiet: bool = False) -> None:
        """Show and run `teacher-infer`, `student-train` or `teach-detr`. Raises as `python`."""
        self.show(tool, *arguments)
        self.python(_MODULES[tool], *arguments, quiet=quiet)

    def show(self, *words: object) -> None:
        """The command line on the screen, with paths inside the package cut short."""
        package = str(resources.files("teach_detr"))
        text = " ".join(str(word).replace(package, "teach_detr") for word in words)
        self.console.print(f"$ {text}", style="dim", markup=False, soft_wrap=True)

    def python(self, module: str, *arguments: object, quiet: bool = False) -> None:
        """Run a module in a new process.

        Raises:
            StageError: it failed.
            KeyboardInterrupt: it, or this process, was stopped.
        """
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
        # a console on stderr means that stdout is kept for JSON
        shown = sys.stderr if self.console.stderr else None
        process = start(
            command,
            env=environment,
            stdout=subprocess.DEVNULL if quiet else shown,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
        )
        try:
            _, said = process.communicate()
        except KeyboardInterrupt:
            # Ctrl-C reached it as well; SIGTERM reached only us
            stop([process])
            raise
        if was_stopped(process.returncode):
            raise KeyboardInterrupt
        if process.returncode:
            raise StageError(
                f"{module} ended with {process.returncode}. {(said or '').strip()[-600:]}".strip()
            )


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a process that does not outlive this one: on Linux it gets SIGTERM, and so saves its
    state, even when this one is killed by `kill -9`.
    """
    return subprocess.Popen(command, preexec_fn=_end_with_parent if _LIBC else None, **options)


def _end_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Ask processes for a saved state; what has not ended after half a minute is killed."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def last_metrics(run: Path, split: str, advice: str = "") -> dict[str, float | None]:
    """The metrics, 0..1, of a student's last evaluation on a split, not of its best: choosing by AP
    would flatter it.

    Raises StageError, which ends in `advice`, if there is none.
    """
    path = run / "results" / f"{split}.metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"no evaluation at {path} ({error}){advice}") from error
    return {name: found[name] for name in METRIC_NAMES}


@contextmanager
def stoppable(sentence: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM within the block end it with StageStopped, which says `sentence`."""
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise StageStopped(sentence) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _as_interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
