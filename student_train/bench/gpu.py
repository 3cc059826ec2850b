"""Everything that only a GPU can tell, in ten minutes, the most valuable first: `make gpu`.

    python -m student_train.bench.gpu --out FOLDER [--dry] [--only PART ...]

GPU time may be lent for minutes, so every part has a limit, after which it is stopped and the next
one begins; what it measured until then stays, and its screen is kept as PART.txt line by line.
--dry runs every part to its end on a CPU with tiny shapes: what fails here would have failed there.
Nothing is installed, and no network is needed.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from box_store.places.files import write_json
from student_train.runs.provenance import source_revision, versions


@dataclass(frozen=True)
class Part:
    """One command of this Python: `arguments` on a GPU, `dry` on a CPU, JSON into NAME.json where
    it takes --out. seconds: its limit on a GPU.
    """

    name: str
    seconds: int
    arguments: tuple[str, ...]
    dry: tuple[str, ...]
    writes: bool = True


_BENCH = ("-m", "student_train.cli", "bench")
_REAL = (*_BENCH, "--preset", "dino-r50-4scale")
_TINY = (*_BENCH, "--preset", "dino-mobilenetv2", "--size", "64x64", "--batch", "1", "--steps", "1")
_KERNELS = ("-m", "detr_kernels.bench")
_SMALL = (*_KERNELS, "--device", "cpu", "--shapes", "small", "--seconds", "0", "--laws", "local")
_TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/detr_kernels")
_ENCODER = ("--shapes", "enc4", "--laws", "local", "--seconds", "0.5")

# limits add up to ten minutes
PARTS = (
    Part(
        "check",
        90,
        ("-m", "detr_kernels.check"),
        ("-m", "detr_kernels.check", "--device", "cpu"),
    ),
    Part("encoder", 80, (*_KERNELS, *_ENCODER), (*_SMALL, "--paths", "module")),
    Part("step", 100, (*_REAL, "--steps", "10"), (*_TINY, "--teachers", "0")),
    Part("tests", 90, (*_TESTS, "-m", "gpu"), (*_TESTS, "-k", "test_backend"), writes=False),
    Part("shares", 50, (*_REAL, "--profile", "--steps", "5"), (*_TINY, "--profile")),
    Part(
        "kernels",
        90,
        (*_KERNELS, "--shapes", "dec4", "enc5", "dec5", "rtdetr-enc", "rtdetr-dec"),
        (*_SMALL, "--paths", "function"),
    ),
    Part("loader", 40, (*_REAL, "--data", "--steps", "10"), (*_TINY, "--data")),
    Part(
        "presets",
        60,
        (*_BENCH, "--presets", "all", "--steps", "5"),
        (*_BENCH, "--presets", "dino-mobilenetv2", "--size", "64x64", "--steps", "1"),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """How a part ended: passed, failed (with its exit code) or out of time."""

    part: str
    result: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; exit code 1 where one did not pass."""
    parser = argparse.ArgumentParser(prog="python -m student_train.bench.gpu")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS])
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    if not options.dry and (obstacle := _no_gpu()):
        print(f"error: {obstacle}; `make gpu DRY=1` rehearses on a CPU", file=sys.stderr)
        return 1
    outcomes: list[Outcome] = []
    for part in chosen:
        outcomes.append(run(part, options.out, dry=options.dry))
        print(f"-- {part.name}: {outcomes[-1].result} after {outcomes[-1].seconds} s", flush=True)
        found = {"parts": [vars(outcome) for outcome in outcomes], "dry": options.dry}
        write_json(
            options.out / "parts.json",
            found | {"versions": versions(), "source": source_revision()},
        )
    bad = [outcome.part for outcome in outcomes if outcome.result != "passed"]
    print(f"\nnot passed: {', '.join(bad)}" if bad else f"\nall passed; results in {options.out}")
    return int(bool(bad))


def run(part: Part, out: Path, *, dry: bool) -> Outcome:
    """One part, on the screen and in PART.txt as it goes, stopped at its limit."""
    command = [sys.executable, "-u", *(part.dry if dry else part.arguments)]
    if part.writes:
        command += ["--out", str(out / f"{part.name}.json")]
    print(f"\n== {part.name}: {' '.join(command[2:])}", flush=True)
    # a rehearsal is for its end, not for its time
    limit = 900 if dry else part.seconds
    start = time.monotonic()
    with (
        (out / f"{part.name}.txt").open("w", encoding="utf-8", buffering=1) as kept,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        ) as process,
    ):
        watch = threading.Timer(limit, _stop, [process])
        watch.start()
        for line in process.stdout or ():
            kept.write(line)
            print(line, end="", flush=True)
        code = process.wait()
        # a timer that can no longer be cancelled has struck
        timed_out = watch.finished.is_set()
        watch.cancel()
    seconds = round(time.monotonic() - start, 1)
    if timed_out:
        return Outcome(part.name, f"out of time ({limit} s)", seconds)
    return Outcome(part.name, "passed" if code == 0 else f"failed ({code})", seconds)


def _stop(process: "subprocess.Popen[str]") -> None:
    """With all that it started: a part has workers and compilers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "torch sees no GPU"


if __name__ == "__main__":
    sys.exit(main())
