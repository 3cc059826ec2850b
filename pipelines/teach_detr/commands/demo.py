"""The commands `demo` and `demo-weights`: everything from nothing, and what that begins with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from teach_detr.terminal import AsJson, open_console, print_json


def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="A tenth of the size: does it run, not does it help")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything it makes: demo, or demo-fast")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew in that folder")] = False,
    as_json: AsJson = False,
) -> None:
    """Scenes, teachers, box store, a small DINO without and with teachers, and the comparison.

    Stopped at any time, the same command goes on. Works offline.
    """
    from teach_detr.demo.demo import run_demo

    place = out or Path("demo-fast" if fast else "demo")
    outcome = run_demo(place, fast=fast, fresh=fresh, console=open_console(to_stderr=as_json))
    if as_json:
        print_json(outcome)


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
    as_json: AsJson = False,
) -> None:
    """Make the weights that the demo starts from, on scenes other than the demo's."""
    from teach_detr.demo.make_weights import make_weights

    made = make_weights(work, out, part, log, open_console(to_stderr=as_json))
    if as_json:
        print_json(made)
