"""`teach-detr`: what spans both stages. Each command's work is in the module of its name."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from box_store.errors import TeachDetrError
from teach_detr.commands.experiment import experiment
from teach_detr.commands.page_and_export import export, report
from teach_detr.commands.scenes import scenes
from teach_detr.commands.sql import check, select, sql
from teach_detr.commands.teachers import calibrate, teachers
from teach_detr.terminal import AsJson, open_console, print_json

app = typer.Typer(
    name="teach-detr",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Train DETR detectors better with the detectors you already have.

    teach-detr demo                      the whole thing on drawn scenes: no data, weights or GPU
    teach-detr run CONFIG.toml           teachers, store, student and comparison from one file
    teach-detr experiment ...            do teachers help, and how sure is that
    teach-detr scenes OUT                drawn scenes to experiment with, and teachers for them
    teach-detr sql STORE "SELECT ..."    query what teachers saw
    teach-detr teachers STORE ...        how good each teacher is
    teach-detr calibrate STORE ...       scores that are chances of being right
    teach-detr report STORE ...          a page about them, to open in a browser
    teach-detr export STORE ...          boxes as COCO, YOLO, CSV or for FiftyOne
    teach-detr doctor                    what this machine has

    Labelling your own images is `teacher-infer`, training on them is `student-train`.
    """,
)


@app.command()
def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="A tenth of the size: does it run, not does it help")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything it makes: demo, or demo-fast")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew in that folder")] = False,
) -> None:
    """Scenes, teachers, box store, a small DINO without and with teachers, and the comparison.

    Stopped at any time, the same command goes on. Works offline.
    """
    from teach_detr.demo.demo import run_demo

    run_demo(
        out or Path("demo-fast" if fast else "demo"), fast=fast, fresh=fresh, console=open_console()
    )


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file of the run; see docs/runs.md")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values over the file's")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Narrate every stage; write nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Both stages from one file: label, check, train, evaluate, compare.

    Stopped at any time, the same command goes on. On a Ray cluster with [cluster] address.

    Example: teach-detr run yolox.toml student.preset=dino-r50-4scale --dry-run
    """
    from student_train.settings.overrides import parse_assignments
    from teach_detr.runs.run import run_file

    console = Console(stderr=True) if as_json else open_console()
    report = run_file(config, parse_assignments(overrides or []), dry_run=dry_run, console=console)
    if as_json:
        print_json(report)


app.command()(scenes)


@app.command("demo-weights")
def demo_weights(
    work: Annotated[Path, typer.Option(help="Folder for scenes and states; resumed if it exists")],
    out: Annotated[
        Path | None, typer.Option(help="Where the weights go; by default the package's own folder")
    ] = None,
    part: Annotated[
        Literal["all", "teacher", "backbone", "student", "report"],
        typer.Option(help="Make only this one"),
    ] = "all",
    log: Annotated[Path | None, typer.Option(help="Markdown file for the log")] = None,
) -> None:
    """Make the weights that the demo starts from, on scenes other than the demo's."""
    from teach_detr.demo.make_weights import make_weights

    make_weights(work, out, part, log, open_console())


app.command()(sql)
app.command()(select)
app.command()(check)
app.command()(teachers)
app.command()(calibrate)
app.command()(experiment)
app.command()(report)
app.command()(export)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Versions, devices, attention backend and why, extras, licences, what collides.

    Ends with 1 if something was found that will go wrong.
    """
    from teach_detr.doctor import diagnose, print_diagnosis

    diagnosis = diagnose()
    if as_json:
        print_json(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis, open_console())
    if not diagnosis.healthy:
        raise typer.Exit(1)


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
