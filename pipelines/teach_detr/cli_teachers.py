"""Commands about the worth of teachers: `calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from teach_detr.terminal import AsJson, open_console, print_json, table

if TYPE_CHECKING:
    from box_store.calibration import Calibration, Part

Store = Annotated[Path, typer.Argument(help="The box store: a folder")]
Teacher = Annotated[
    list[str] | None, typer.Option(help="Only this one; repeat it for more (default: all)")
]


def calibrate(
    store: Store,
    annotations: Annotated[Path, typer.Option(help="COCO annotations of images that they saw")],
    teacher: Teacher = None,
    method: Annotated[
        Literal["isotonic", "temperature"],
        typer.Option(help="Any monotone map, or one number on the logit of the score"),
    ] = "isotonic",
    held_out: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the images to judge the map on")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the division of the images")] = 0,
    max_images: Annotated[
        int, typer.Option(min=1, help="Use at most so many images, drawn with the seed")
    ] = 5000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fit and report, but leave the store as it is")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit each teacher's scores to how often its boxes are right, and keep the map in the store.

    Raw scores stay. `student-train train --calibrated` and the column `calibrated_score` use it.

    Example: teach-detr calibrate boxes --annotations coco/annotations/instances_val2017.json
    """
    from box_store import BoxStore, load_coco
    from box_store.calibration import write_calibration
    from box_store.calibration_fit import calibrate as fit

    opened = BoxStore.open(store)
    coco = load_coco(annotations)
    names = teacher or list(opened.teachers)
    found = [
        fit(
            opened,
            name,
            coco,
            method=method,
            held_out=held_out,
            seed=seed,
            max_images=max_images,
        )
        for name in names
    ]
    # all or none: a teacher that cannot be calibrated leaves the others as they were
    for calibration in found:
        if not dry_run:
            write_calibration(opened, calibration)
    if as_json:
        print_json([calibration.to_json() for calibration in found])
        return
    _show(found, open_console())
    if not dry_run:
        print(f"next      student-train train --store {store} --calibrated ...")


def _show(found: "list[Calibration]", console: Console) -> None:
    """A line a teacher, and its reliability before and after."""
    columns = ("teacher", "images", "boxes", "right", "ECE", "after", "Brier", "after")
    rows = []
    for calibration in found:
        part = calibration.held or calibration.fitted
        rows.append(
            (
                calibration.teacher,
                str(part.n_images),
                str(part.n_boxes),
                _percent(part.n_hits / part.n_boxes if part.n_boxes else None),
                _percent(part.raw.calibration_error),
                _percent(part.calibrated.calibration_error),
                _percent(part.raw.brier),
                _percent(part.calibrated.brier),
            )
        )
    where = "on images held out" if all(c.held for c in found) else "on the images fitted to"
    console.print(table(columns, rows, numbers=range(1, 8), title=f"{where}, in percent"))
    for calibration in found:
        console.print(_reliability(calibration, calibration.held or calibration.fitted))
    console.print(
        f"A box is right if it finds an annotated object of its class at IoU {found[0].iou:g}. "
        "Where objects lack annotations, right boxes count as wrong and calibrated scores come out "
        "too low.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _reliability(calibration: "Calibration", part: "Part") -> Table:
    after = {band["from_score"]: band for band in part.calibrated.bands}
    before = {band["from_score"]: band for band in part.raw.bands}
    rows = []
    for start in sorted(before.keys() | after):
        cells: list[str] = [f"{start:.1f}"]
        for bands in (before, after):
            band = bands.get(start)
            cells += (
                [str(band["boxes"]), _percent(band["mean_score"]), _percent(band["precision"])]
                if band
                else ["0", "-", "-"]
            )
        rows.append(cells)
    columns = ("from", "boxes", "score", "right", "boxes after", "score after", "right after")
    said = calibration.map.method
    if said == "temperature":
        said += f" {calibration.map.temperature:.3f}"
    return table(
        columns, rows, numbers=range(7), title=f"{calibration.teacher}: {said}, in percent"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
