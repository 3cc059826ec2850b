"""Pictures of an outcome: differences with their intervals, curves, scenes that differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from box_store import Boxes, CocoData
from box_store.calibration.matching import HIT, IGNORED, match_boxes
from box_store.coco.annotations import Annotations
from box_store.forms.opening import annotations_of
from student_train.evaluation.plots import new_figure, save_figure
from student_train.runs.metrics import read_metrics
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.outcome import Outcome, Run
from teach_detr.pictures import Column, picture_grid, result_boxes, truth_boxes

PALETTE = (
    *("#6b7280", "#d1495b", "#00798c", "#edae49", "#30638e", "#7cb518", "#8f2d56", "#f4845f"),
    *("#2a9d8f", "#5f0f40"),
)
_MIN_SCORE = 0.3
_MATCH_IOU = 0.5


@dataclass(frozen=True)
class Figure:
    """A picture with its heading and a sentence on what it shows."""

    title: str
    caption: str
    path: Path


@dataclass(frozen=True)
class Row:
    """One interval: what stands beside it, where it comes from, and its colour."""

    label: str
    condition: str
    arm: str
    colour: str


def interval_panels(outcome: Outcome) -> dict[str, list[Row]]:
    """Rows by panel: a panel a condition; where all compare one and the same arm, one for all."""
    panels: dict[str, list[Row]] = {}
    for condition, arms in outcome.conditions.items():
        panels[condition] = [
            Row(name, condition, name, PALETTE[i % len(PALETTE)])
            for i, (name, arm) in enumerate(arms.items())
            if arm.difference is not None
        ]
    rows = [row for panel in panels.values() for row in panel]
    if len(panels) > 1 and len({row.arm for row in rows}) == 1:
        return {rows[0].arm: [replace(row, label=row.condition) for row in rows]}
    return {name: panel for name, panel in panels.items() if panel}


def draw_intervals(outcome: Outcome, path: Path) -> None:
    """Differences in AP to the reference: points are seeds, lines 95 % intervals."""
    panels = interval_panels(outcome)
    n_rows = max(len(rows) for rows in panels.values())
    figure, axes = new_figure(1, len(panels), width=4.6, height=0.9 + 0.42 * n_rows)
    by_cell = {run.cell: run.metrics["AP"] or 0.0 for run in outcome.runs}
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        for y, row in enumerate(rows):
            arm = outcome.conditions[row.condition][row.arm]
            gap = arm.difference
            assert gap is not None
            axis.plot([100 * gap.low, 100 * gap.high], [y, y], color=row.colour, linewidth=2.5)
            axis.plot(100 * gap.mean, y, "D", color=row.colour, markersize=6)
            seeds = [
                100 * (by_cell[Cell(row.condition, row.arm, seed)] - by_cell[reference])
                for seed in arm.seeds
                if (reference := Cell(row.condition, outcome.reference, seed)) in by_cell
            ]
            axis.plot(seeds, [y + 0.22] * len(seeds), ".", color=row.colour, alpha=0.6)
        axis.axvline(0, color="#444", linewidth=1)
        axis.set_yticks(range(len(rows)), [row.label for row in rows])
        axis.invert_yaxis()
        axis.set_title(title)
        axis.set_xlabel(f"AP minus {outcome.reference}, in points")
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_curves(outcome: Outcome, grid: Grid, path: Path) -> bool:
    """AP over steps, mean and range over seeds; False where runs were evaluated only once."""
    curves = {run.cell: _curve(grid, run.cell) for run in outcome.runs}
    if all(len(curve) < 2 for curve in curves.values()):
        return False
    figure, axes = new_figure(1, len(outcome.conditions), width=4.6, height=3.6)
    for axis, (condition, arms) in zip(axes, outcome.conditions.items(), strict=True):
        for i, (name, arm) in enumerate(arms.items()):
            colour = PALETTE[i % len(PALETTE)]
            runs = [curves[Cell(condition, name, seed)] for seed in arm.seeds]
            steps = sorted(set.intersection(*(set(curve) for curve in runs)))
            values = 100 * np.asarray([[curve[step] for step in steps] for curve in runs])
            axis.plot(steps, values.mean(0), "-", color=colour, label=name, linewidth=1.8)
            axis.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.12)
        axis.set_title(condition)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("AP (%)")
    axes[0].legend(fontsize="small", frameon=False)
    save_figure(figure, path)
    return True


def _curve(grid: Grid, cell: Cell) -> dict[int, float]:
    path = grid.folder(cell) / "metrics.jsonl"
    records = read_metrics(path) if path.exists() else ()
    return {
        int(record["step"]): float(record["AP"])
        for record in records
        if record.get("kind") == "eval" and record.get("AP") is not None
    }


def draw_scenes(outcome: Outcome, grid: Grid, path: Path) -> tuple[str, str] | None:
    """Scenes of the evaluation split where an arm and the reference differ most, both ways.

    The arm is the one with the largest difference, on either side of 0; its condition and name are
    returned. None where there is nothing to compare.
    """
    chosen = _most_different(outcome)
    if chosen is None:
        return None
    condition, arm = chosen
    config = grid.plan.config
    coco = annotations_of(config.annotations(config.data.val_split))
    by_cell = {run.cell: run for run in outcome.runs}
    pairs = [
        (by_cell[Cell(condition, arm, seed)], by_cell[Cell(condition, outcome.reference, seed)])
        for seed in config.seeds
        if Cell(condition, arm, seed) in by_cell
        and Cell(condition, outcome.reference, seed) in by_cell
    ]
    ids = [image.id for image in coco.images]
    gaps = np.mean([_f1(grid, a, coco, ids) - _f1(grid, b, coco, ids) for a, b in pairs], 0)
    order = np.argsort(-gaps, kind="stable")
    half = config.pictures // 2
    places = [*order[: config.pictures - half].tolist(), *order[len(order) - half :].tolist()]
    shown = list(dict.fromkeys(ids[place] for place in places))
    first = pairs[0]
    columns = [
        Column("truth", {i: truth_boxes(coco, i) for i in shown}),
        *(
            Column(run.cell.arm, result_boxes(grid.results(run.cell), coco, shown), _MIN_SCORE)
            for run in (first[1], first[0])
        ),
    ]
    folder = config.data.images_of(config.data.val_split)
    picture_grid(
        path,
        [(i, folder / coco.by_id[i].file_name) for i in shown],
        columns,
        {category.id: category.name for category in coco.categories.items},
    )
    return chosen


def _most_different(outcome: Outcome) -> tuple[str, str] | None:
    gaps = {
        (condition, name): abs(arm.difference.mean)
        for condition, arms in outcome.conditions.items()
        for name, arm in arms.items()
        if arm.difference is not None
    }
    return max(gaps, key=lambda key: gaps[key]) if gaps else None


def _f1(grid: Grid, run: Run, coco: CocoData, ids: Sequence[int]) -> np.ndarray:
    """F1 of each image for detections of score 0.3 and more at IoU 0.5: [I]."""
    found = result_boxes(grid.results(run.cell), coco, ids)
    return np.asarray([_image_f1(found[i].above(_MIN_SCORE), coco.annotations_of(i)) for i in ids])


def _image_f1(found: Boxes, truth: Annotations) -> float:
    n_objects = int((~truth.iscrowd).sum())
    outcome = match_boxes(found.sorted(), truth, _MATCH_IOU).outcome
    n_boxes = int((outcome != IGNORED).sum())
    if not n_boxes and not n_objects:
        return 1.0
    return 2 * int((outcome == HIT).sum()) / (n_boxes + n_objects)


def write_figures(outcome: Outcome, grid: Grid) -> list[Figure]:
    """Draw what there is to draw into the experiment's folder."""
    figures: list[Figure] = []
    if any(arm.difference for arms in outcome.conditions.values() for arm in arms.values()):
        path = grid.out / "intervals.png"
        draw_intervals(outcome, path)
        caption = "Difference in AP to the reference: dots are seeds, lines 95 % intervals."
        figures.append(Figure("Differences", caption, path))
    path = grid.out / "curves.png"
    if draw_curves(outcome, grid, path):
        caption = "AP over the steps: means over seeds, with their range."
        figures.append(Figure("Curves", caption, path))
    path = grid.out / "scenes.png"
    chosen = draw_scenes(outcome, grid, path)
    if chosen is not None:
        caption = (
            f"Condition {chosen[0]}: truth, {outcome.reference} and {chosen[1]}, first seed. Above "
            f"the scenes where {chosen[1]} gains most (F1 at IoU {_MATCH_IOU}, score from "
            f"{_MIN_SCORE}, mean of the seeds), below those where it loses most."
        )
        figures.append(Figure("Scenes that differ most", caption, path))
    return figures
