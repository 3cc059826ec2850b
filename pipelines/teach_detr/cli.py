"""`teach-detr`: what spans both stages. The commands are in modules of `teach_detr.commands`."""

import sys
from collections.abc import Sequence

import typer
from rich.console import Console

from box_store.errors import TeachDetrError
from teach_detr.commands.data import data
from teach_detr.commands.demo import demo, demo_weights
from teach_detr.commands.doctor import doctor
from teach_detr.commands.experiment import experiment
from teach_detr.commands.export import export
from teach_detr.commands.init import init
from teach_detr.commands.report import report
from teach_detr.commands.review import review
from teach_detr.commands.run import run
from teach_detr.commands.scenes import scenes
from teach_detr.commands.sql import check, select, sql
from teach_detr.commands.teachers import calibrate, teachers

app = typer.Typer(
    name="teach-detr",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Train DETR detectors better with the detectors you already have.

    \b
    teach-detr demo               all of it on drawn scenes: no data, weights, GPU
    teach-detr data SRC           what a folder is: YOLO, VOC, COCO, CSV, ...
    teach-detr init SRC           a run.toml for it: student, schedule, teachers
    teach-detr run CONFIG.toml    teachers, store and student from one file
    teach-detr experiment ...     do teachers help, and how sure is that
    teach-detr scenes OUT         drawn scenes to experiment with, and teachers
    teach-detr sql STORE "..."    query what teachers saw
    teach-detr select STORE ...   boxes of a query, to train on
    teach-detr check STORE        is a store whole
    teach-detr teachers STORE ... how good each teacher is
    teach-detr calibrate STORE .. scores that are chances of being right
    teach-detr report STORE ...   a page about them, to open in a browser
    teach-detr review STORE ...   labels that a person should look at first
    teach-detr export STORE ...   boxes for trainers, label tools, FiftyOne
    teach-detr doctor             what this machine has

    Labelling your own images is `teacher-infer`, training on them `student-train`.
    """,
)

app.command()(demo)
app.command()(data)
app.command()(init)
app.command()(run)
app.command()(scenes)
app.command("demo-weights")(demo_weights)
app.command()(sql)
app.command()(select)
app.command()(check)
app.command()(teachers)
app.command()(calibrate)
app.command()(experiment)
app.command()(report)
app.command()(review)
app.command()(export)
app.command()(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through SystemExit."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="teach-detr")
    except TeachDetrError as error:
        console = Console(stderr=True)
        console.print("[red]error:[/red] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
