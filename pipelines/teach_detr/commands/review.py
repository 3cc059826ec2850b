"""The command `review`: what a person should look at first."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from teach_detr.commands.options import Data, Split, Store, Teacher
from teach_detr.terminal import AsJson, open_console, print_json, said_progress


def review(
    store: Store,
    out: Annotated[Path, typer.Option(help="New folder: review.html, queue.json and tasks")],
    data: Data = None,
    split: Split = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, where --data is not given")
    ] = None,
    teacher: Teacher = None,
    to: Annotated[
        Literal["cvat", "label-studio", "labelme", "voc"] | None,
        typer.Option("--as", help="Also write the images as tasks for this tool"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images in the queue")] = 200,
    least: Annotated[
        float, typer.Option(min=0, max=1, help="Doubts of a smaller chance are left out")
    ] = 0.3,
    pictures: Annotated[int, typer.Option(min=0, help="Images of the queue with pictures")] = 60,
    as_json: AsJson = False,
) -> None:
    """A queue of images whose labels are probably wrong or missing, worst first.

    Labels that are missing, of another class, or found by no teacher; for images without labels,
    what teachers are least sure of. `teach-detr data SRC --corrections DIR` takes back what people
    made of the tasks.

    Example: teach-detr review boxes --data bccd --split train --as cvat --out review
    """
    from teach_detr.review.review import write_review

    console = Console(stderr=True)
    console.print(f"comparing {store} with {data or 'nothing'}", markup=False, highlight=False)
    written = write_review(
        store,
        data,
        out,
        split=split,
        images=images,
        teachers=None if teacher is None else tuple(teacher),
        form=to,
        limit=limit,
        least=least,
        pictures=pictures,
        progress=said_progress(console, "images looked at"),
    )
    queue = written.queue
    if as_json:
        print_json(
            {"out": str(out), "tasks": written.tasks and str(written.tasks)} | queue.to_json()
        )
        return
    shown = open_console()

    def line(text: str) -> None:
        shown.print(text, markup=False, highlight=False, soft_wrap=True)

    doubts = ", ".join(f"{n} {kind}" for kind, n in queue.counts.items() if n) or "none"
    line(f"doubts    {doubts}, in {queue.n_images} images that teachers saw")
    expected = sum(page.expected for page in queue.pages)
    line(f"queue     {len(queue.pages)} images, about {expected:.0f} corrections")
    raw = [name for name in queue.teachers if name not in queue.calibrated]
    if raw:
        line(
            f"note      scores of {', '.join(raw)} are no chances: `teach-detr calibrate {store}` "
            "puts the queue into a better order"
        )
    line(f"written   {out}/review.html, {out}/queue.json")
    if written.tasks is not None:
        line(f"written   {written.tasks}: open it in {to}, and bring back what it exports with")
        line(
            f"next      teach-detr data {data or 'SRC'} --corrections EXPORT --review {out} "
            "--out NEW"
        )
