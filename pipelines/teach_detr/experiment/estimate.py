"""How long the training of an experiment will take, from runs that ended or from a few steps."""

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from box_store.forms.opening import annotations_of
from box_store.patience import Say, patience
from student_train.config import NO_TEACHERS, TrainConfig
from student_train.data.order import steps_per_epoch
from student_train.runs.metrics import read_metrics
from student_train.runs.recorded import write_settings
from student_train.settings.overrides import Resolved
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.workers import command

# in a run folder: how long the run took, once it came to its end
TIME_NOTE = "time.json"
_PROBE_STEPS = 8


def readable(seconds: float) -> str:
    """95 -> 1 min 35 s; 7300 -> 2 h 2 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class Estimate:
    """The time that `n_runs` runs of `each` seconds will take; None where it is not known."""

    n_runs: int
    each: float | None
    at_once: int
    source: str

    @property
    def seconds(self) -> float | None:
        """Of all of them."""
        return None if self.each is None else self.each * self.n_runs / self.at_once

    def __str__(self) -> str:
        if not self.n_runs:
            return "nothing is left to train"
        where = f"{self.at_once} at a time"
        if self.seconds is None:
            return f"unknown for {self.n_runs} runs, {where}: {self.source}"
        return f"about {readable(self.seconds)} for {self.n_runs} runs, {where}: {self.source}"


def estimate(
    grid: Grid, cells: Sequence[Cell], left: Sequence[Cell], say: Say = lambda text: None
) -> Estimate:
    """How long the runs that are left will take. A cluster's width is not known: one at a time."""
    config = grid.plan.config
    at_once = 1 if config.cluster.address else len(config.devices)
    seconds = [time for cell in cells if (time := run_seconds(grid, cell)) is not None]
    each: float | None = None
    source = ""
    if seconds:
        each = sum(seconds) / len(seconds)
        source = f"{len(seconds)} runs that ended took {readable(each)} each"
    elif left:
        with patience(say, f"measuring {_PROBE_STEPS} steps of {left[0].name}"):
            each, source = probe(grid, left[0])
    return Estimate(len(left), each, at_once, source)


def run_seconds(grid: Grid, cell: Cell) -> float | None:
    """Seconds that a run took, from its own note; None where it did not end."""
    try:
        note = json.loads((grid.folder(cell) / TIME_NOTE).read_text(encoding="utf-8"))
        return float(note["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def probe(grid: Grid, cell: Cell) -> tuple[float | None, str]:
    """Seconds of one run, from a few steps of it without teachers; and where they come from.

    Evaluations are not measured: they come on top.
    """
    whole = grid.student(cell)
    with tempfile.TemporaryDirectory(prefix="teach-detr-probe-") as name:
        folder = Path(name)
        write_settings(
            folder / "probe.json", Resolved(few_steps(grid, whole.config), whole.origins)
        )
        words = ("--config", str(folder / "probe.json"), "--out", str(folder / "run"))
        started = time.monotonic()
        done = subprocess.run(
            command(["student_train.cli", "train", *words]), capture_output=True, text=True
        )
        if done.returncode:
            return None, f"a few steps failed: {done.stderr.strip()[-300:]}"
        elapsed = time.monotonic() - started
        rows = [r for r in read_metrics(folder / "run/metrics.jsonl") if r["kind"] == "train"]
    # the first steps warm up
    paces = sorted(row["images_per_second"] for row in rows[2:])
    step = whole.config.batch_size / paces[len(paces) // 2]
    n_steps = run_steps(grid, whole.config)
    start_up = max(0.0, elapsed - _PROBE_STEPS * step)
    return start_up + n_steps * step, (
        f"{n_steps} steps of {step:.2f} s as measured just now, and {start_up:.0f} s to start "
        "and evaluate once"
    )


def few_steps(grid: Grid, config: TrainConfig) -> TrainConfig:
    """The same student over a few steps, on labels as given and without teachers: those of a
    condition, and boxes, may not be there yet.
    """
    given = grid.plan.config.data
    data = replace(
        config.data,
        val_limit=1,
        train_images=given.train_images and given.train_images.absolute(),
        train_annotations=given.train_annotations and given.train_annotations.absolute(),
    )
    teachers = replace(config.teachers, names=NO_TEACHERS)
    return replace(
        config, data=data, teachers=teachers, steps=_PROBE_STEPS, log_every=1, eval_every=0
    )


def run_steps(grid: Grid, config: TrainConfig) -> int:
    """Steps of a whole run, as the trainer counts them."""
    data = grid.plan.config.data
    path = grid.plan.config.annotations(data.train_split)
    listed = len(annotations_of(path, labelled=False).table)
    n_images = min(listed, data.images or listed, config.data.limit or listed)
    return config.total_steps(steps_per_epoch(n_images, config.batch_size))
