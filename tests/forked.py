"""Processes that run what `python -m MODULE WORDS` runs, without the seconds of its imports: they
are forked from one that has loaded the trainer already.
"""

import multiprocessing
import os
import runpy
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PRELOADED = ["student_train.training.launch", "student_train.presets", "student_train.cli"]


def context() -> Any:
    """Of processes that are forked from the one with the trainer."""
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(PRELOADED)
    return chosen


class Forked:
    """A process in a session of its own, as far as `subprocess.Popen` is asked for one here:
    `stdout` is what it prints and complains of, as text.
    """

    def __init__(
        self, module: str, words: Sequence[str], env: Mapping[str, str] = os.environ
    ) -> None:
        receiver, sender = context().Pipe(duplex=False)
        given = (module, list(words), dict(env), str(Path.cwd()), sender)
        self._process = context().Process(target=_become, args=given)
        self._process.start()
        sender.close()
        self.stdout = os.fdopen(os.dup(receiver.fileno()), encoding="utf-8")
        receiver.close()

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget
    assert poll is not None

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, "it still runs"
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it prints until its end; killed, and a failure, if that does not come in time."""
        watch = threading.Timer(timeout or 600, self._process.kill)
        watch.start()
        with self.stdout:
            said = self.stdout.read()
        self.wait()
        assert not watch.finished.is_set(), f"not ended in time; so far: {said}"
        watch.cancel()
        return said, None


def _become(
    module: str, words: list[str], env: dict[str, str], folder: str, out: Connection
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for standard in (1, 2):
        os.dup2(out.fileno(), standard)
    out.close()
    # what a forked process is told about how to start others
    multiprocessing.set_start_method(None, force=True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [module, *words]
    # that of modules which are there already
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    runpy.run_module(module, run_name="__main__", alter_sys=True)
