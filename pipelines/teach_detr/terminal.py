"""What the commands print with: a console, tables, JSON."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from teacher_infer.commands.terminal import AsJson, print_json

__all__ = ["AsJson", "open_console", "print_json", "said_progress", "table"]

_SAY_EVERY_S = 5.0


def open_console(to_stderr: bool = False) -> Console:
    """stdout, or stderr where stdout carries JSON; a table in a pipe is not cut to 80 columns."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(stderr=to_stderr, width=None if stream.isatty() else 140)


def said_progress(console: Console, what: str) -> Callable[[int, int], None]:
    """What takes the number done and the number of all, and says both every few seconds."""
    started = said = time.monotonic()

    def say(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_EVERY_S and done:
            said = now
            left = (now - started) / done * (of - done)
            console.print(f"{done} of {of} {what}, about {left:.0f} s left", highlight=False)

    return say


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
