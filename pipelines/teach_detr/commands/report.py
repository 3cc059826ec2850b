"""The command `report`: a page about the teachers of a store."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from teach_detr.commands.options import Annotations, Data, SplitShown, Store, truth_and_split
from teach_detr.terminal import AsJson, print_json


def report(
    store: Store,
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    annotations: Annotations = None,
    data: Data = None,
    split: SplitShown = None,
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
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about the teachers of a store; it holds everything and loads nothing.

    Without annotations it has no AP.

    Example: teach-detr report boxes --annotations instances_val2017.json --images val2017
    """
    from box_store.forms.opening import folder_of
    from teach_detr.report import ReportOptions, write_report

    place, shown = truth_and_split(annotations, data, split)
    if images is None and data is not None and place is not None:
        images = folder_of(place)
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
            store, out, annotations=place, split=shown, images=images, options=options, say=say
        )
    n_shown = 0 if written.pictures is None else len(written.pictures.samples)
    n_teachers = len(written.findings.teachers)
    if as_json:
        print_json(
            {
                "out": str(out),
                "teachers": n_teachers,
                "boxes": written.findings.n_boxes,
                "images_shown": n_shown,
                "bytes": written.n_bytes,
            }
        )
        return
    shown = f"{n_shown} images" if n_shown else "no images"
    print(
        f"{out}: {n_teachers} teacher{'s' * (n_teachers != 1)}, {written.findings.n_boxes} boxes, "
        f"{shown}, {written.n_bytes / 1e6:.2f} MB. Open it in any browser."
    )
