"""What came out of an experiment: metrics of every run, paired differences, and where they go.

::

    OUT/results.json     everything below
    OUT/results.parquet  a row a run: condition, arm, seed, metrics, seconds; for SQL
    OUT/results.md       the tables in Markdown, to paste
    OUT/page.html        tables, curves, pictures; loads nothing
    OUT/*.png            the pictures of the page
"""

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from box_store import BoxStore
from box_store.errors import TeachDetrError
from student_train.evaluation.coco_metrics import read_annotations
from student_train.evaluation.evaluate import METRIC_NAMES
from student_train.runs.provenance import source_revision, versions
from student_train.settings.overrides import to_plain
from teach_detr.assessment.scoring import score_teachers
from teach_detr.experiment.estimate import run_seconds
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.interval import Difference, Gap, differences
from teach_detr.experiment.resampling import Matches, draw_images
from teach_detr.experiment.same_arm import FalseAlarms, same_arm
from teach_detr.experiment.signs import near_share, truth_loss
from teach_detr.runs.stages import StageError, last_metrics

# a 95 % interval that leaves out 0 on either side, or not
HELPS, HURTS, UNCLEAR = "better", "worse", "no difference seen"
# one seed says nothing of others
UNKNOWN = "one seed: not known"


@dataclass(frozen=True)
class Run:
    """One run that came to its end: its metrics, 0..1, and seconds."""

    cell: Cell
    metrics: dict[str, float | None]
    seconds: float | None
    truth_loss: float | None = None
    """the ground truth's own loss at the end of training"""
    near: dict[str, float | None] = field(default_factory=dict)
    """by class, the share of objects with a prediction near them"""


@dataclass(frozen=True)
class ArmSummary:
    """An arm under a condition, over seeds: mean and standard deviation of each metric, 0..1."""

    seeds: tuple[int, ...]
    mean: dict[str, float | None]
    deviation: dict[str, float | None]
    difference: Difference | None
    """AP against the reference, over the seeds that both have; None for the reference itself"""
    truth_loss: float | None = None
    """mean of the runs'"""
    near: dict[str, float | None] = field(default_factory=dict)
    """by class, mean of the runs'"""

    @property
    def verdict(self) -> str:
        """What the interval of the difference says; "" for the reference."""
        if self.difference is None:
            return ""
        if not self.difference.says_of_seeds:
            return UNKNOWN
        if self.difference.low > 0:
            return HELPS
        return HURTS if self.difference.high < 0 else UNCLEAR

    def is_sure(self, level: float, seeds: int) -> bool:
        """Whether at least so many seeds leave 0 out of the interval of that level."""
        gap = self.difference
        enough = gap is not None and gap.says_of_seeds and gap.n_seeds >= seeds
        return enough and abs(gap.mean) > gap.half(level)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Outcome:
    """All runs, arms by condition, teachers on the evaluation split, and where it comes from."""

    reference: str
    runs: list[Run]
    conditions: dict[str, dict[str, ArmSummary]]
    teachers: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)
    device: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    same_arm: dict[str, list[FalseAlarms]] = field(default_factory=dict)
    """by condition, how often the reference would be called different from itself"""
    source: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain tables and lists."""
        return {
            "reference": self.reference,
            "conditions": {
                condition: {
                    name: {**asdict(arm), "verdict": arm.verdict} for name, arm in arms.items()
                }
                for condition, arms in self.conditions.items()
            },
            "runs": run_rows(self.runs),
            "teachers": self.teachers,
            "same_arm": {name: [asdict(a) for a in rows] for name, rows in self.same_arm.items()},
            "failed": self.failed,
            "device": self.device,
            "source": self.source,
            "versions": self.versions,
            "config": self.config,
        }


def gather(grid: Grid, failed: Mapping[str, str], console: Console | None = None) -> Outcome:
    """Read what the runs left behind and compare the arms, with a bar on a terminal.

    A run without an evaluation is left out; an arm is compared over the seeds that it shares with
    the reference.
    """
    config = grid.plan.config
    truth = read_annotations(config.annotations(config.data.val_split))
    runs = [run for cell in grid.cells() if (run := _read(grid, cell, truth)) is not None]
    resampled = _resample(grid, runs, truth, console)
    by_cell: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        by_cell.setdefault((run.cell.condition, run.cell.arm), {})[run.cell.seed] = run
    compared = differences(_gaps(by_cell, config.reference, resampled))
    conditions = {
        condition: {
            arm: _summary(found, compared.get((condition, arm)))
            for arm in grid.plan.arms
            if (found := by_cell.get((condition, arm)))
        }
        for condition in grid.plan.conditions
    }
    return Outcome(
        reference=config.reference,
        runs=runs,
        conditions={name: arms for name, arms in conditions.items() if arms},
        teachers=_teachers(grid),
        same_arm={
            condition: same_arm(
                np.array([run.metrics["AP"] or 0.0 for run in found.values()]),
                np.stack([resampled[run.cell] for run in found.values()]),
            )
            for condition in conditions
            if (found := by_cell.get((condition, config.reference)))
        },
        failed=dict(failed),
        device=_device(grid, runs),
        config=to_plain(config),
        source=source_revision(),
        versions=versions(),
    )


def _read(grid: Grid, cell: Cell, truth: Mapping[str, Any]) -> Run | None:
    seconds = run_seconds(grid, cell)
    if seconds is None:
        return None
    try:
        metrics = last_metrics(grid.folder(cell), grid.plan.config.data.val_split)
    except StageError:
        return None
    results = json.loads(grid.results(cell).read_text(encoding="utf-8"))
    loss = truth_loss(grid.folder(cell) / "metrics.jsonl")
    return Run(cell, metrics, seconds, loss, near_share(truth, results))


def _resample(
    grid: Grid, runs: Sequence[Run], truth: Mapping[str, Any], console: Console | None
) -> dict[Cell, NDArray[np.float64]]:
    """AP [R] of each run over the same resampled images."""
    weights = draw_images(len(truth["images"]), grid.plan.config.resamples, 0)
    found: dict[Cell, NDArray[np.float64]] = {}
    silent = console is None or not console.is_terminal
    for run in track(runs, "resampling", console=console, transient=True, disable=silent):
        results = json.loads(grid.results(run.cell).read_text(encoding="utf-8"))
        found[run.cell] = Matches(truth, results).ap(weights)
    return found


def _gaps(
    by_cell: Mapping[tuple[str, str], Mapping[int, Run]],
    reference: str,
    resampled: Mapping[Cell, NDArray[np.float64]],
) -> dict[Hashable, Gap]:
    """By condition and arm, the difference to the reference over the seeds that both have."""
    found: dict[Hashable, Gap] = {}
    for (condition, arm), runs in by_cell.items():
        others = by_cell.get((condition, reference), {})
        pairs = [(run, others[seed]) for seed, run in runs.items() if seed in others]
        if arm != reference and pairs:
            found[condition, arm] = Gap(
                condition,
                np.array([(a.metrics["AP"] or 0.0) - (b.metrics["AP"] or 0.0) for a, b in pairs]),
                np.stack([resampled[a.cell] - resampled[b.cell] for a, b in pairs]),
            )
    return found


def _summary(found: Mapping[int, Run], difference: Difference | None) -> ArmSummary:
    runs = list(found.values())
    values = {name: _known(run.metrics[name] for run in runs) for name in METRIC_NAMES}
    losses = _known(run.truth_loss for run in runs)
    near = {name: _known(run.near.get(name) for run in runs) for name in runs[0].near}
    return ArmSummary(
        seeds=tuple(found),
        mean={name: _mean(v) for name, v in values.items()},
        # of a sample: one seed says nothing about the spread
        deviation={
            name: float(np.std(v, ddof=1)) if len(v) > 1 else None for name, v in values.items()
        },
        difference=difference,
        truth_loss=_mean(losses),
        near={name: _mean(v) for name, v in near.items()},
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _teachers(grid: Grid) -> list[dict[str, Any]]:
    """AP of the teachers; empty where none of them saw the evaluation split."""
    config = grid.plan.config
    try:
        scores = score_teachers(
            BoxStore.open(config.store_path), config.annotations(config.data.val_split)
        )
    except TeachDetrError:
        return []
    return [score.to_json() for score in scores]


def _device(grid: Grid, runs: Sequence[Run]) -> str:
    """What the first run's log says of its device."""
    for run in runs:
        log = grid.folder(run.cell) / "log.txt"
        if log.exists():
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("device "):
                    return line.partition(" ")[2].strip()
    return "unknown"


def run_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A flat row a run."""
    return [
        {
            **asdict(run.cell),
            **run.metrics,
            "truth_loss": run.truth_loss,
            "seconds": run.seconds,
            "run": run.cell.name,
        }
        for run in runs
    ]


def finite(value: Any) -> Any:
    """JSON knows no NaN: an undefined number is null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
