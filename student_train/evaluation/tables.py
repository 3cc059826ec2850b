"""Metrics as people read them: percent, one table of a split, one of its classes."""

from rich.table import Table

from student_train.evaluation.coco_metrics import METRIC_NAMES, Metrics


def percent(value: float | None) -> str:
    """0..1 as percent with one decimal, a dash where undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def metrics_table(title: str, metrics: Metrics) -> Table:
    """One row of COCO metrics, in percent."""
    table = Table(title=title, title_justify="left")
    for name in METRIC_NAMES:
        table.add_column(name, justify="right")
    table.add_row(*(percent(metrics.values[name]) for name in METRIC_NAMES))
    return table


def class_table(metrics: Metrics) -> Table:
    """A row for every class that the images hold, best first, in percent."""
    table = Table(title="by class", title_justify="left")
    table.add_column("class")
    for name in ("objects", *METRIC_NAMES):
        table.add_column(name, justify="right")
    present = [row for row in metrics.per_class if row.n_truth]
    for row in sorted(present, key=lambda row: -(row.AP or 0.0)):
        values = (percent(getattr(row, name)) for name in METRIC_NAMES)
        table.add_row(row.name, str(row.n_truth), *values)
    return table
