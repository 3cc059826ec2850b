"""Commands for looking at a store and for taking its boxes elsewhere: `report`, `export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console


def report(
    store: Annotated[Path, typer.Argument(help="The box store: a folder")],
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    annotations: Annotated[
        Path | None, typer.Option(help="COCO annotations to compare with; else no AP")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; else none are shown")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Images to show")] = 24,
    pixels: Annotated[
        int, typer.Option(min=64, help="Longer side of an image that is shown")
    ] = 480,
    metric_images: Annotated[
        int, typer.Option(min=1, help="Compute AP on at most so many annotated images")
    ] = 5000,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random")] = 0,
) -> None:
    """Write one HTML page about the teachers of a store; it holds everything and loads nothing.

    Example: teach-detr report boxes --annotations instances_val2017.json --images val2017
    """
    from teach_detr.report import ReportOptions, write_report

    options = ReportOptions(
        n_samples=samples, image_px=pixels, metric_images=metric_images, seed=seed
    )
    progress = Console(stderr=True)
    with progress.status("reading the store") as status:

        def say(text: str) -> None:
            # a log has no line that can be overwritten
            if progress.is_terminal:
                status.update(text)
            elif not text.startswith("image "):
                progress.print(text, markup=False, highlight=False)

        written = write_report(
            store, out, annotations=annotations, images=images, options=options, say=say
        )
    shown = "no images" if written.pictures is None else f"{len(written.pictures.samples)} images"
    n_teachers = len(written.findings.teachers)
    print(
        f"{out}: {n_teachers} teacher{'s' * (n_teachers != 1)}, {written.findings.n_boxes} boxes, "
        f"{shown}, {written.n_bytes / 1e6:.2f} MB. Open it in any browser."
    )


def export(
    store: Annotated[Path, typer.Argument(help="The box store: a folder")],
    form: Annotated[
        Literal["coco-results", "coco", "yolo", "csv", "fiftyone"],
        typer.Option("--format", help="coco: annotations made of boxes; yolo, fiftyone: folders"),
    ],
    out: Annotated[Path, typer.Option(help="File, or new folder, to write")],
    teacher: Annotated[
        list[str] | None, typer.Option(help="Only this one; repeat it for more")
    ] = None,
    fused: Annotated[bool, typer.Option("--fused", help="Merge the teachers' boxes")] = False,
    score_floor: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out boxes below; 0.3 for coco and yolo, else 0"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Best boxes kept an image and teacher")] = 100,
    nms_iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="Class-wise suppression at this IoU")
    ] = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Scores as `calibrate` made them; floors of these")
    ] = False,
    licence: Annotated[
        list[str] | None, typer.Option(help="Only teachers of this licence, such as 'Apache*'")
    ] = None,
    deny_licence: Annotated[
        list[str] | None, typer.Option(help="Leave out teachers of this licence, such as 'AGPL*'")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Condition on score, area, width, height (px), category or image_id; repeat it"
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, to link for yolo and fiftyone")
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="yolo: a line ends with the score")
    ] = False,
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
        top_k=top_k,
        nms_iou=nms_iou,
        calibrated=calibrated,
        licences=licence or (),
        deny_licences=deny_licence or (),
        where=where or (),
    )
    n_images, n_boxes = export_boxes(store, form, out, spec, images=images, with_scores=scores)
    print(f"{out}: {n_boxes} boxes of {n_images} images")
