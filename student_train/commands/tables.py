"""Tables for people: metrics, classes, presets, parity."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from student_train.config import TrainConfig
from student_train.evaluation.coco_metrics import METRIC_NAMES
from student_train.evaluation.compare import RunSummary, curves, differences, metric_row, sparkline
from student_train.evaluation.tables import percent
from student_train.parity import Row
from student_train.presets import Preset
from student_train.presets.weights import KnownWeights


def compare_table(runs: Sequence[RunSummary]) -> Table:
    """A row for every run: steps, last loss, and its best evaluation in percent."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("run")
    for name in ("steps", "loss", *METRIC_NAMES):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        loss = f"{run.losses[-1][1]:.2f}" if run.losses else "-"
        values = map(percent, metric_row(run))
        table.add_row(run.name, str(run.step), loss, *values)
    return table


def difference_table(runs: Sequence[RunSummary]) -> Table:
    """Settings that differ, a column for every run."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("setting", no_wrap=True)
    for run in runs:
        table.add_column(run.name)
    for key, texts in differences(runs).items():
        table.add_row(key, *texts)
    return table


def curve_lines(runs: Sequence[RunSummary]) -> Iterator[str]:
    """Each curve of each run as a line of bars, on the scale of all runs."""
    for name, lines in curves(runs).items():
        values = [value for line in lines for _, value in line]
        if not values:
            continue
        low, high = min(values), max(values)
        yield f"{name}  {low:.3g} to {high:.3g}"
        for run, line in zip(runs, lines, strict=True):
            yield f"  {sparkline([value for _, value in line], low, high)}  {run.name}"


def presets_table(rows: Sequence[tuple[Preset, TrainConfig, int]]) -> Table:
    """Every preset with its size and the AP that its authors published."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("preset", no_wrap=True, min_width=16)
    table.add_column("backbone", no_wrap=True, max_width=20)
    for name in ("epochs", "queries", "params", "AP", "+ Aux"):
        table.add_column(name, justify="right", no_wrap=True)
    for preset, config, n_parameters in rows:
        published = preset.published
        table.add_row(
            preset.name,
            config.model.backbone,
            str(config.epochs),
            str(config.model.n_queries),
            f"{n_parameters / 1e6:.1f} M",
            f"{published.ap}" if published else "",
            f"{published.ap_with_teachers}" if published and published.ap_with_teachers else "",
        )
    return table


def weights_table(rows: Sequence[KnownWeights]) -> Table:
    """Weights of others, with what their authors say of them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("weights", overflow="fold")
    for name in ("preset", "licence", "trained on"):
        table.add_column(name)
    table.add_column("AP", justify="right", no_wrap=True)
    for row in rows:
        ap = "" if row.ap is None else f"{row.ap}"
        place = f"{row.place} *" if row.by_others else row.place
        table.add_row(place, row.preset, row.licence, row.trained_on, ap)
    return table


def parity_row(row: Row) -> str:
    """One compared output as a line."""
    if row.error is None or row.tolerance is None:
        return f"{row.status:5}{row.set}  {row.note}"
    note = f"  {row.note}" if row.note else ""
    return f"{row.status:5}{row.set}  {row.output}  {row.error:.1e} of {row.tolerance:.0e}{note}"


def parity_table(rows: Sequence[Row]) -> Table:
    """Every compared output with its largest error and the error allowed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("set", no_wrap=True)
    table.add_column("output")
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("allowed", justify="right", no_wrap=True)
    table.add_column("note")
    for row in rows:
        error = "" if row.error is None else f"{row.error:.1e}"
        allowed = "" if row.tolerance is None else f"{row.tolerance:.0e}"
        table.add_row(row.status, row.set, row.output, error, allowed, row.note)
    return table
