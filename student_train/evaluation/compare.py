"""Several runs side by side: metrics, curves, and what their configurations do differently."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from box_store.places.locations import RemoteError, RemotePath, as_typed
from student_train.errors import RunError
from student_train.evaluation.coco_metrics import METRIC_NAMES
from student_train.runs.metrics import read_metrics
from student_train.runs.run_folder import SavedRun
from student_train.settings.overrides import as_text

# where a run lies and what it is called says nothing about what it does
_UNINTERESTING = frozenset({"preset"})
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class RunSummary:
    """What one run folder says, without loading a model."""

    name: str
    settings: dict[str, Any]
    """by dotted key, JSON values"""
    losses: list[tuple[int, float]]
    """(step, total loss)"""
    evaluations: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluation with the highest AP, None before the first."""
        return max(self.evaluations, key=lambda row: row.get("AP") or 0.0, default=None)

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        steps = [step for step, _ in self.losses] + [row["step"] for row in self.evaluations]
        return max(steps, default=0)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": self.name,
            "step": self.step,
            "best": self.best and {k: v for k, v in self.best.items() if k != "per_class"},
            "AP": [[row["step"], row.get("AP")] for row in self.evaluations],
            "loss": [list(pair) for pair in self.losses],
        }


def read_run(folder: Path | RemotePath) -> RunSummary:
    """What a run folder says.

    Raises:
        RunError: it is none, or nothing was recorded yet.
    """
    run = SavedRun(as_typed(folder))
    try:
        content = json.loads(run.config_file.read_bytes())
        settings = _flat(content["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RemoteError) and not isinstance(error, FileNotFoundError):
            raise
        raise RunError(f"{run.root} is not a run folder: it has no readable config.json") from None
    if not run.metrics.exists():
        raise RunError(f"{run.root} has recorded nothing yet: there is no {run.metrics.name}")
    records = list(read_metrics(run.metrics))
    losses = [
        (int(row["step"]), float(row["loss"]["total"]))
        for row in records
        if row.get("kind") == "train" and row["loss"].get("total") is not None
    ]
    evaluations = [row for row in records if row.get("kind") == "eval"]
    return RunSummary(str(run.root), settings, losses, evaluations)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differences(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs, a text for each run; "" where it has none."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    table = {
        key: [as_text(run.settings[key]) if key in run.settings else "" for run in runs]
        for key in keys
        if key not in _UNINTERESTING
    }
    return {key: texts for key, texts in table.items() if len(set(texts)) > 1}


def sparkline(values: Sequence[float], low: float, high: float, width: int = 40) -> str:
    """Values as bars of eight heights between `low` and `high`, at most `width` of them."""
    if len(values) > width:
        # means of equal shares, so that no peak is lost to chance
        cuts = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    span = (high - low) or 1.0
    top = len(_BARS) - 1
    return "".join(_BARS[min(top, max(0, round((v - low) / span * top)))] for v in values)


def curves(runs: Sequence[RunSummary]) -> dict[str, list[list[tuple[int, float]]]]:
    """By name (`AP`, `loss`), a list of (step, value) for every run."""
    return {
        "AP": [
            [
                (int(row["step"]), float(row["AP"]))
                for row in run.evaluations
                if row.get("AP") is not None
            ]
            for run in runs
        ],
        "loss": [run.losses for run in runs],
    }


def write_plot(runs: Sequence[RunSummary], path: Path) -> None:
    """Draw AP and loss over steps, a line a run.

    Raises:
        UsageError: matplotlib is not installed.
    """
    from student_train.evaluation.plots import new_figure, save_figure

    figure, axes = new_figure(1, 2)
    for axis, (name, lines) in zip(axes, curves(runs).items(), strict=True):
        for run, line in zip(runs, lines, strict=True):
            axis.plot([s for s, _ in line], [v for _, v in line], label=run.name)
        axis.set_xlabel("step")
        axis.set_title(name)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    save_figure(figure, path)


def metric_row(run: RunSummary) -> list[float | None]:
    """METRIC_NAMES of the best evaluation."""
    best = run.best or {}
    return [best.get(name) for name in METRIC_NAMES]
