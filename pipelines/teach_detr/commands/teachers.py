"""Commands about the worth of teachers: `teachers`, `calibrate`."""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from box_store.errors import UsageError
from box_store.patience import if_it_takes
from teach_detr.commands.options import (
    Annotations,
    Calibrated,
    Data,
    MaxImages,
    Split,
    Store,
    Teacher,
    TopK,
    needed_truth,
)
from teach_detr.terminal import AsJson, open_console, print_json


def teachers(
    store: Store,
    annotations: Annotations = None,
    data: Data = None,
    split: Split = None,
    teacher: Teacher = None,
    score_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out boxes below this score")
    ] = 0.0,
    top_k: TopK = 100,
    calibrated: Calibrated = False,
    fusion: Annotated[
        Literal["nms", "soft_nms", "wbf"], typer.Option(help="How boxes are merged")
    ] = "nms",
    fusion_iou: Annotated[
        float, typer.Option(min=0, max=1, help="IoU at which boxes of a class are merged")
    ] = 0.2,
    classes: Annotated[bool, typer.Option("--classes", help="Also AP of every class")] = False,
    max_images: MaxImages = None,
    seed: Annotated[int, typer.Option(help="Of the images that are drawn")] = 0,
    as_json: AsJson = False,
) -> None:
    """How good each teacher is, how sure of itself, how they agree, and what their fusion adds.

    All annotated images are looked at where hotcoco is installed, without it 5000 (--max-images).

    Example: teach-detr teachers boxes --annotations coco/annotations/instances_val2017.json
    """
    from box_store import BoxStore, FusionConfig, SelectionSpec

    spec = SelectionSpec(
        teachers=None if teacher is None else tuple(teacher),
        score_floor=score_floor,
        top_k=top_k,
        calibrated=calibrated,
        fusion=FusionConfig(fusion, fusion_iou),
    )
    place = needed_truth(annotations, data, split)
    with if_it_takes(f"comparing the boxes of {store} with {place}"):
        # what is imported now takes seconds
        from teach_detr.assessment.assessment import assess
        from teach_detr.assessment.scoring import images_within_reach
        from teach_detr.assessment.tables import assessment_tables

        most = max_images or images_within_reach()
        found = assess(BoxStore.open(store), place, spec, max_images=most, seed=seed)
    if as_json:
        print_json(found.to_json())
        return
    console = open_console()
    for shown in assessment_tables(found, classes):
        console.print(shown)


def calibrate(
    store: Store,
    annotations: Annotations = None,
    data: Data = None,
    split: Split = None,
    teacher: Teacher = None,
    method: Annotated[
        Literal["isotonic", "temperature"],
        typer.Option(help="Any monotone map, or one number on the logit of the score"),
    ] = "isotonic",
    held_out: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the images to judge the map on")
    ] = 0.5,
    nms_iou: Annotated[
        str,
        typer.Option(
            help="Suppress before the fit as training will (teachers.nms_iou): an IoU, or off"
        ),
    ] = "0.5",
    seed: Annotated[int, typer.Option(help="Of the division of the images")] = 0,
    max_images: MaxImages = 5000,
    floors: Annotated[
        Path | None,
        typer.Option(help="Also write score floors of classes here: a TOML file for --config"),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of --floors: the lowest with so many right; else best F1"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fit and report, but leave the store as it is")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit each teacher's scores to how often its boxes are right, and keep the map in the store.

    Raw scores stay. `student-train train --calibrated` and the column `calibrated_score` use it.

    Example: teach-detr calibrate boxes --annotations coco/annotations/instances_val2017.json
    """
    from box_store import BoxStore
    from box_store.calibration.fitting import calibrate as fit
    from box_store.calibration.judging import judge
    from box_store.calibration.score_map import write_calibration
    from box_store.forms.opening import annotations_of
    from box_store.selection.floors import propose, write_floors

    suppression = _suppression(nms_iou)
    if precision is not None and floors is None:
        raise UsageError("--precision is of the floors that --floors FILE writes")
    opened = BoxStore.open(store)
    place = needed_truth(annotations, data, split)
    with if_it_takes(f"reading {place}"):
        # what is imported now takes seconds
        from teach_detr.assessment.assessment import shared_mistakes
        from teach_detr.assessment.tables import calibration_tables, floors_table, label_notes

        coco = annotations_of(place)
    names = teacher or list(opened.teachers)
    found = []
    for name in names:
        with if_it_takes(f"fitting the scores of {name} to {place}"):
            found.append(
                fit(
                    opened,
                    name,
                    coco,
                    method=method,
                    held_out=held_out,
                    nms_iou=suppression,
                    seed=seed,
                    max_images=max_images,
                )
            )
    proposed = {}
    if floors is not None:
        for name in names:
            judged = judge(
                opened, name, coco, nms_iou=suppression, max_images=max_images, seed=seed
            )
            proposed[name] = propose(judged, coco, precision)
        write_floors(floors, proposed, str(place))
    # all or none: a teacher that cannot be calibrated leaves the others as they were
    for calibration in found:
        if not dry_run:
            write_calibration(opened, calibration)
    # SQL is an extra, and this only a remark
    mistakes = shared_mistakes(store, place) if find_spec("duckdb") else []
    if as_json:
        told = {"calibrations": [calibration.to_json() for calibration in found]}
        rows = {name: [asdict(row) for row in each] for name, each in proposed.items()}
        told |= {"shared_mistakes": mistakes, "notes": coco.notes}
        print_json(told | ({"floors": rows} if rows else {}))
        return
    console = open_console()
    dropped = (f"note      annotations: {note}" for note in coco.notes)
    for shown in (*calibration_tables(found), *label_notes(mistakes), *dropped):
        console.print(shown)
    for name, rows in proposed.items():
        console.print(floors_table(name, rows))
    if floors is not None:
        print(f"floors    {floors}, of scores as they are: student-train train --config {floors}")
    if not dry_run:
        print(f"next      student-train train --store {store} --calibrated ...")


def _suppression(text: str) -> float | None:
    if text == "off":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--nms-iou={text}: expected an IoU of 0..1, or off")
    return value
