"""The command `parity`: our numbers against the official implementations'."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import TeachDetrError
from box_store.patience import Patience
from student_train.commands.terminal import Json, open_console, print_json, print_plain


def parity(
    folder: Annotated[Path, typer.Argument(help="Folder of golden numbers.")],
    sets: Annotated[
        list[str] | None, typer.Argument(metavar="[SET]...", help="Only these sets.")
    ] = None,
    double: Annotated[bool, typer.Option(help="Compare in float64 too (twice the time).")] = True,
    as_json: Json = False,
) -> None:
    """Compare students and losses with the official implementations' numbers, set by set."""
    from student_train.commands.tables import parity_row, parity_table
    from student_train.parity import iterate_parity

    console = open_console(to_stderr=as_json)
    rows = []
    told = Patience(partial(print_plain, console), f"reading   {folder}")
    for row in iterate_parity(folder, sets or None, double):
        rows.append(row)
        told.remind()
        if console.is_terminal and not as_json:
            console.print(parity_row(row), markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json([vars(row) | {"passed": row.passed} for row in rows])
    elif not console.is_terminal:
        console.print(parity_table(rows))
    wrong = [row for row in rows if not row.passed]
    skipped = sum(row.status == "skip" for row in rows)
    compared = len(rows) - skipped
    if wrong:
        names = ", ".join(f"{row.set} {row.output}" for row in wrong[:3])
        raise TeachDetrError(
            f"{len(wrong)} of {compared} outputs are beyond their tolerance: {names}"
            + (", ..." if len(wrong) > 3 else "")
        )
    if compared == 0:
        raise TeachDetrError(f"{folder} holds nothing that the installed students cover")
    console.print(
        f"{compared} outputs within tolerance; {skipped} sets that no installed student covers"
    )
