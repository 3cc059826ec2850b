"""The command `init`: from a data set to the file of a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from teach_detr.terminal import AsJson, print_json


def init(
    source: Annotated[Path, typer.Argument(help="Data set of any form; `teach-detr data` knows")],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=ADAPTER:MODEL[,key=value...], as in `teacher-infer run`; repeat it"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write")] = Path("run.toml"),
    run: Annotated[Path | None, typer.Option(help="Folder of the run that it describes")] = None,
    preset: Annotated[str | None, typer.Option(help="Student; by default one that fits")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented run.toml for a data set: student, schedule, teachers with class maps.

    What is proposed fits the images, the classes, the objects in an image and this machine; each
    choice says why. Change what you like, then `teach-detr run run.toml`.

    Example: teach-detr init bccd --teacher yolox=onnx:yolox_nano.onnx,format=yolox
    """
    from teach_detr.first_run.init import write_first_run

    console = Console(stderr=True)
    found = write_first_run(
        source, teacher or [], out, run=run, preset=preset,
        say=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
    )  # fmt: skip
    if as_json:
        print_json(found)
        return
    print(f"written   {out}")
    first = "" if found["has_teacher"] else f"a table [teachers.NAME] in {out}, then "
    print(f"next      {first}teach-detr run {out} --dry-run")
