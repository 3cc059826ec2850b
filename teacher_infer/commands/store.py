"""The commands on what a store holds: `status`, `import`, `export`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from box_store.coco.annotations import CocoData
from box_store.errors import UsageError
from box_store.forms.opening import annotations_of
from box_store.identity import check_same, of_split
from box_store.patience import if_it_takes
from box_store.results.exporting import export_results
from box_store.results.importing import import_results
from box_store.store.records import DatasetInfo
from box_store.store.store import BoxStore
from box_store.wording import counted
from teacher_infer.commands.options import Store, Takeover
from teacher_infer.commands.report import print_status, teacher_status
from teacher_infer.commands.terminal import AsJson, print_json, say, stdout


def status(
    store: Annotated[Path, typer.Argument(help="The box store")], as_json: AsJson = False
) -> None:
    """How far each teacher of a store is, how many boxes it has, and which images failed."""
    box_store = BoxStore.open(store)
    rows = [teacher_status(box_store, record) for record in box_store.teachers.values()]
    if as_json:
        print_json({"store": str(store), "dataset": box_store.dataset.name, "teachers": rows})
    else:
        print_status(stdout(), box_store, rows)


def import_file(
    store: Store,
    name: Annotated[str, typer.Option(help="Name of the teacher that made the results")],
    results: Annotated[list[Path], typer.Option(help="COCO results file; repeat it for more")],
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="COCO annotation file that the results belong to; needed by a store that has no "
            "teacher yet"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set of any form, in place of --annotations")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of --data; or what --annotations, or the store's images, are of"),
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Further results files")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the detector's weights")] = "unknown",
    score_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections below this score")
    ] = 0.0,
    only_listed: Annotated[
        bool,
        typer.Option(
            "--only-listed", help="Images without any detection count as not seen, not as empty"
        ),
    ] = False,
    takeover: Takeover = False,
    as_json: AsJson = False,
) -> None:
    """Take another program's detections into the store as a teacher, from COCO results JSON.

    Files of any size: they are read as a stream. All ids are checked before anything is stored.

    Example: teacher-infer import --store boxes --name lab --results lab.json
    --annotations coco/annotations/instances_train2017.json
    """
    listed = None
    coco = _listed(annotations, data, split)
    if coco is not None:
        listed = coco.images
        info = DatasetInfo(coco.split or coco.path.stem, coco.sha256, len(coco.images))
        box_store = BoxStore.open_or_create(store, coco.categories, info)
        box_store.check_categories(coco.categories, coco.path)
        check_same(box_store, listed, coco.path)
    else:
        box_store = BoxStore.open(store)
        if split is not None:
            box_store = of_split(box_store, split)
    files = [*results, *(more or [])]
    with if_it_takes(f"reading {', '.join(map(str, files))} into {store}"):
        report = import_results(
            box_store,
            name,
            files,
            listed,
            licence=licence,
            score_floor=score_floor,
            only_listed=only_listed,
            takeover=takeover,
        )
    row = {
        "teacher": name,
        "boxes": report.n_boxes,
        "units_written": report.units_written,
        "units_present": report.units_present,
        "dropped": dict(report.dropped),
        "cut": report.n_cut,
        "scores_rounded_to_0": report.n_faint,
    }
    if as_json:
        print_json(row)
        return
    dropped = "".join(f", {count} left out ({why})" for why, count in report.dropped.items())
    if report.units_written:
        boxes = counted(report.n_boxes, "box", "boxes")
        say(f"{name}: {boxes} of {counted(report.record.n_images, 'image')}{dropped}")
        for remark in report.remarks():
            say(f"note      {remark}")
    else:
        say(f"{name}: these results are in the store already")


def _listed(annotations: Path | None, data: Path | None, split: str | None) -> CocoData | None:
    """The images that results may be of, None for those that the store knows."""
    if data is None:
        coco = None if annotations is None else annotations_of(annotations, labelled=False)
        return coco if coco is None or split is None else replace(coco, split=split)
    if annotations is not None:
        raise UsageError("give --annotations FILE or --data SRC, not both")
    place = data if split is None else Path(f"{data},split={split}")
    return annotations_of(place, labelled=False)


def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="COCO results file to write")],
    teacher: Annotated[str | None, typer.Option(help="Whose boxes")] = None,
    fused: Annotated[bool, typer.Option("--fused", help="All teachers' boxes, merged")] = False,
    score_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out boxes below this score")
    ] = 0.0,
    split: Annotated[
        str | None,
        typer.Option(help="Only this split of the store; needed where several count images alike"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a teacher's boxes, or all teachers' boxes fused, as COCO results JSON.

    Example: teacher-infer export --store boxes --fused --out fused.json
    """
    if fused == (teacher is not None):
        raise UsageError("whose boxes? Give --teacher NAME, or --fused for all of them merged")
    opened = BoxStore.open(store)
    if split is not None:
        opened = of_split(opened, split)
    with if_it_takes(f"writing {out}"):
        n_boxes = export_results(opened, teacher, out, score_floor=score_floor)
    if as_json:
        print_json({"teacher": teacher or "fused", "boxes": n_boxes, "out": str(out)})
    else:
        say(f"{out}: {n_boxes} boxes")
