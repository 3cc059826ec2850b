"""The rows as tables to read: drawn by rich on a terminal that has it, aligned text elsewhere."""

import sys
from collections.abc import Sequence
from typing import TextIO

from detr_kernels.bench.rows import CeilingRow, FailureRow, FirstCallRow, OperatorRow, Row

HEADINGS = (
    "", "dtype", "forward ms", "backward ms", "both ms", "speed-up", "roofline", "peak",
    "error: output, gradients",
)  # fmt: skip


def show(rows: Sequence[Row], out: TextIO) -> None:
    """Write what one measurement gave: rows of one kind, or contenders and failures together."""
    operators = [row for row in rows if isinstance(row, OperatorRow)]
    if operators:
        first = operators[0]
        start = "locations and weights" if first.path == "function" else "offsets and logits"
        title = f"{first.shape}, {first.law} locations, from {start}"
        _table(title, HEADINGS, [_cells(row) for row in operators], out)
    for row in rows:
        if isinstance(row, CeilingRow):
            print(f"{row.name}: {row.rate:.0f} {row.unit}  ({row.how})", file=out)
        elif isinstance(row, FirstCallRow):
            print(f"first call, {row.cache} cache, {row.path}: {row.seconds:.2f} s", file=out)
        elif isinstance(row, FailureRow):
            print(f"  {row.contender}, {row.dtype}: cannot run: {row.error}", file=out)
    out.flush()


def _cells(row: OperatorRow) -> list[str]:
    def timed(milliseconds: float, spread: float) -> str:
        return f"{milliseconds:.3f} ±{spread / 2:.0%}"

    def share(part: float | None) -> str:
        return "" if part is None else f"{part:.0%}"

    output, *gradients = row.errors.values()
    return [
        row.contender,
        row.dtype,
        timed(row.forward_ms, row.forward_spread),
        timed(row.backward_ms, row.backward_spread),
        timed(row.both_ms, row.both_spread),
        f"{row.speedup_both:.2f}x",
        f"{share(row.roofline_forward)}, {share(row.roofline_backward)}",
        "" if row.peak_mb is None else f"{row.peak_mb:.0f} MB",
        f"{output:.1e}, {max(gradients):.1e}",
    ]


def _table(
    title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], out: TextIO
) -> None:
    if out is sys.stdout and out.isatty() and _draw(title, headings, lines):
        return
    widths = [max(len(cell) for cell in column) for column in zip(headings, *lines, strict=True)]
    print(f"\n{title}", file=out)
    for line in (headings, *lines):
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(cells), file=out)


def _draw(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> bool:
    """On the terminal, if rich is installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=i != 0)
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    return True
