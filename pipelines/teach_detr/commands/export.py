"""The command `export`: a store's boxes for other programs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from box_store.patience import if_it_takes
from teach_detr.commands.options import (
    Calibrated,
    DeniedLicences,
    Licences,
    SplitShown,
    Store,
    Teacher,
    TopK,
    truth_and_split,
)
from teach_detr.terminal import AsJson, print_json


def export(
    store: Store,
    form: Annotated[
        Literal[
            "coco-results",
            "coco",
            "yolo",
            "csv",
            "fiftyone",
            "cvat",
            "label-studio",
            "labelme",
            "voc",
        ],
        typer.Option(
            "--format",
            help="coco, yolo: labels made of boxes; cvat, label-studio, labelme, voc: guesses with "
            "scores for people to correct",
        ),
    ],
    out: Annotated[Path, typer.Option(help="File, or new folder, to write")],
    teacher: Teacher = None,
    fused: Annotated[bool, typer.Option("--fused", help="Merge the teachers' boxes")] = False,
    score_floor: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out boxes below; 0.3 for coco and yolo, else 0"),
    ] = None,
    class_floor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FLOOR", help="Another floor for this class; repeat it"),
    ] = None,
    top_k: TopK = 100,
    nms_iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="Class-wise suppression at this IoU")
    ] = None,
    calibrated: Calibrated = False,
    licence: Licences = None,
    deny_licence: DeniedLicences = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Condition on score, area, width, height (px), category or image_id; repeat it"
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, to link in folders")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Only images of this data set, of any form")
    ] = None,
    split: SplitShown = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Only images that this COCO file lists: of one split")
    ] = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="yolo: a line ends with the score (to look at: trainers of YOLO refuse them)",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take boxes out for other programs; images that were not seen are left out of labels.

    Example: teach-detr export boxes --format yolo --out labels --fused --where "area>=256"
    """
    from teach_detr.export import export_boxes, spec_of

    spec = spec_of(
        form,
        teachers=teacher,
        fused=fused,
        score_floor=score_floor,
        class_floors=class_floor or (),
        top_k=top_k,
        nms_iou=nms_iou,
        calibrated=calibrated,
        licences=licence or (),
        deny_licences=deny_licence or (),
        where=where or (),
    )
    listed, shown = truth_and_split(annotations, data, split)
    with if_it_takes(f"writing {out}"):
        n_images, n_boxes = export_boxes(
            store,
            form,
            out,
            spec,
            images=images,
            with_scores=scores,
            listed=listed,
            split=shown,
            say=_note,
        )
    if as_json:
        print_json({"out": str(out), "format": form, "boxes": n_boxes, "images": n_images})
    else:
        print(f"{out}: {n_boxes} boxes of {n_images} images")


def _note(text: str) -> None:
    print(f"note      {text}", file=sys.stderr)
