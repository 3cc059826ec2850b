"""Commands for looking at a store and for taking its boxes elsewhere: `report`, `export`."""

from pathlib import Path
from typing import Annotated

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
        f"{shown}, {written.n_bytes / 2**20:.1f} MiB. Open it in any browser."
    )
