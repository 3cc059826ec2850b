"""The command `list`: which detectors can be teachers, and how they are named."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from teacher_infer.adapter import adapter_help, adapter_info
from teacher_infer.spec import KEYS
from teacher_infer.terminal import AsJson, print_json, say, stdout


def list_adapters(
    adapter: Annotated[str | None, typer.Argument(help="Only this one")] = None,
    as_json: AsJson = False,
) -> None:
    """The adapters: what each can run, what it needs, its licence, an example, and all keys."""
    rows = list_rows(adapter_info(adapter).name if adapter else None)
    if as_json:
        print_json(rows)
    else:
        print_list(stdout(), rows)


def list_rows(adapter: str | None) -> list[dict[str, Any]]:
    """The adapters, or one of them, as `teacher-infer list` knows them."""
    return [
        {
            "adapter": info.name,
            "summary": info.summary,
            "install": f"pip install 'teach-detr[{info.extra}]'" if info.extra else "nothing more",
            "licence": info.licence,
            "example": info.example,
            "options": dict(info.options),
        }
        for info in adapter_help()
        if adapter is None or info.name == adapter
    ]


def print_list(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adapters with an example each, and the keys that all of them share."""
    for row in rows:
        say(f"{row['adapter']}: {row['summary']}", console)
        say(f"    install   {row['install']}", console)
        say(f"    licence   {row['licence']}", console)
        say(f"    example   --teacher {row['example']}", console)
        for key, text in row["options"].items():
            say(f"    {key + '=':<12}{text}", console)
    say("keys of every teacher:", console)
    for key, entry in KEYS.items():
        say(f"    {key + '=':<12}{entry.help}", console)
    say("    map.CLASS=  the data set's name or id for this teacher class, or none", console)
