"""A process that does one job after another: frameworks are imported and photos decoded once.

    python -m teach_detr.runs.worker

reads a job a line from stdin, `{"words": [MODULE, ARGUMENT...], "log": PATH}`, does what
`python -m MODULE ARGUMENT...` does with what it prints in the log, and answers `{"code": N}` on
stdout. It ends with stdin, and after a job that was told to stop.
"""

import contextlib
import gc
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from student_train.machine.interrupt import was_stopped

# decoded photos that are kept for the next runs
_PHOTOS_BYTES = 2**29


def main() -> None:
    """Do jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        job = json.loads(line)
        with _into(Path(job["log"])):
            code = run(job["words"])
        answers.write(json.dumps({"code": code}) + "\n")
        answers.flush()
        if was_stopped(code):
            break
        _tidy()


def run(words: Sequence[str]) -> int:
    """The exit code of `python -m WORDS`, run in this process."""
    before = sys.argv
    sys.argv = list(words)
    try:
        if words[0].startswith("student_train"):
            from student_train.data.images import keep_decoded

            keep_decoded(_PHOTOS_BYTES)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.argv = before
    return 0


@contextlib.contextmanager
def _into(log: Path) -> Iterator[None]:
    """What this process and its children print, appended to a file."""
    kept = os.dup(1), os.dup(2)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, saved in enumerate(kept, 1):
                os.dup2(saved, number)
                os.close(saved)


def _tidy() -> None:
    """Give back what the last run held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
