"""Pictures with axes, by matplotlib where it is installed."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import UsageError
from box_store.places.durable import temporary_beside


def require_plots() -> None:
    """Refuse before the work what would fail after it.

    Raises:
        UsageError: matplotlib is not installed; the extra is named.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "pictures need matplotlib, which is not installed: pip install 'teach-detr[plot]', "
            "or leave out --plot"
        )


def new_figure(rows: int, columns: int, width: float = 5.5, height: float = 4.0) -> Any:
    """A figure without a window, and its axes in one row-major array.

    Raises:
        UsageError: matplotlib is not installed; the extra is named.
    """
    require_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(rows, columns)).ravel()


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format of the suffix, PNG without one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(path) as (file, temporary):
        figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=120)
    temporary.replace(path)


def plot_precision_recall(curves: Mapping[str, Any], path: Path) -> None:
    """Precision over recall: all classes at three IoUs, and every class at IoU 0.5.

    `curves` is `Curves.to_json()`.
    """
    figure, (whole, classes) = new_figure(1, 2)
    for name, values in curves["precision"].items():
        whole.plot(curves["recall"], _numbers(values), label=name)
    for row in curves["per_class"]:
        classes.plot(curves["recall"], _numbers(row["precision"]), label=row["name"], linewidth=1)
    for axis, title in ((whole, "all classes"), (classes, "by class, IoU 0.5")):
        axis.set_title(title)
        axis.set_xlabel("recall")
        axis.set_ylabel("precision")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
    whole.legend(fontsize="small")
    if 0 < len(curves["per_class"]) <= 12:
        classes.legend(fontsize="small")
    save_figure(figure, path)


def plot_confusion(names: Sequence[str], counts: np.ndarray, path: Path) -> None:
    """Shares of each row of a confusion matrix [n, n] as colours, counts as numbers in the cells;
    `names` has a name a row.
    """
    side = max(4.0, 0.28 * len(names))
    figure, (axis,) = new_figure(1, 1, side + 1.5, side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        axis.text(
            *(column, row, _short(int(counts[row, column]))),
            ha="center",
            va="center",
            fontsize="x-small",
            color="white" if shares[row, column] > 0.5 else "black",
        )
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    axis.set_yticks(range(len(names)), names, fontsize="small")
    axis.set_xlabel("detected as")
    axis.set_ylabel("annotated as")
    figure.colorbar(image, ax=axis, shrink=0.8)
    save_figure(figure, path)


def _short(count: int) -> str:
    """A count that fits into a cell: 950, 1.2k, 35k."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
