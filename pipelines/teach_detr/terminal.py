"""What the commands print with: a console, tables, JSON."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from teacher_infer.commands.terminal import AsJson, print_json

__all__ = ["AsJson", "open_console", "print_json", "table"]


def open_console(to_stderr: bool = False) -> Console:
    """stdout, or stderr where stdout carries JSON; a table in a pipe is not cut to 80 columns."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(stderr=to_stderr, width=None if stream.isatty() else 140)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    title: str | None = None,
) -> Table:
    """A table whose columns `numbers` are aligned right."""
    made = Table(title=title, title_justify="left")
    for i, name in enumerate(columns):
        made.add_column(name, justify="right" if i in numbers else "left")
    for row in rows:
        made.add_row(*row)
    return made
