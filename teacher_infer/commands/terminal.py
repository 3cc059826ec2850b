"""Where the commands of `teacher-infer` print, and the option that asks for JSON."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout")]


def stdout() -> Console:
    """stdout; a table in a pipe or a log is not cut to 80 columns."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def say(text: str, console: Console | None = None) -> None:
    """A line as it is: no markup, no colours guessed from its words, no breaks."""
    (console or stdout()).print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def complain(text: str) -> None:
    """An error, on stderr."""
    console = Console(stderr=True)
    console.print("[red]error:[/red] ", end="")
    say(text, console)
