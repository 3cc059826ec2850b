"""What the commands share: where they print, and the options that mean the same everywhere."""

import json
import logging
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings by dotted key; `student-train presets NAME` lists them.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Weights = Annotated[str, typer.Option(help="Which weights of the run: best or last.")]


def open_console(to_stderr: bool = False) -> Console:
    """stdout, or stderr where stdout carries JSON; reports of skipped images go the same way."""
    stream = sys.stderr if to_stderr else sys.stdout
    # a file or a pipe has no edge: tables keep their words there
    console = Console(stderr=to_stderr, width=None if stream.isatty() else 140)
    handler = RichHandler(console=console, show_time=False, show_path=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    return console


def print_json(content: Any) -> None:
    """JSON on stdout."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def print_plain(console: Console, text: str) -> None:
    """A line as it is: no markup, no colours guessed from its words, no breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def is_other_rank() -> bool:
    """Whether another of torchrun's processes does the printing."""
    return os.environ.get("RANK", "0") != "0"
