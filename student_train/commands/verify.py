"""The command `verify`: an exported file in every runtime that is here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from box_store.errors import UsageError
from student_train.commands.terminal import Json, Weights, open_console, print_json, print_plain

if TYPE_CHECKING:
    from rich.table import Table

    from student_train.export.verify import Row


def verify(
    file: Annotated[Path, typer.Argument(help=".onnx of any tool, or a student's .pt2.")],
    run: Annotated[
        Path | None, typer.Option(help="The run that it was made from, which says what is right.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set for photos and AP: COCO, YOLO, Pascal VOC, ...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Its split; by default val2017.")] = None,
    limit: Annotated[int | None, typer.Option(help="Take so many of its images.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Height x width in px of made-up images; else its own.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of each runtime.")] = 1,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a score or a relative box side.")
    ] = 1e-3,
    layers: Annotated[
        bool, typer.Option("--layers/--no-layers", help="Look for the first layer that differs.")
    ] = True,
    weights: Weights = "best",
    as_json: Json = False,
) -> None:
    """Run an exported file in onnxruntime, OpenVINO (in float32 and as it comes), onnxruntime-web
    under node and torch.export, as far as they are here, and compare what they say.

    Without --run, onnxruntime without any optimisation says what is right. Ends with 1 where a
    runtime computes something else, and names the first layer that differs. What computes with
    fewer bits, as --half and --int8 do, and OpenVINO by itself, is judged by AP: within a point.
    """
    from student_train.export.verifying import Asked, verify_file
    from student_train.runs.loading import load_trained
    from student_train.settings.sizes import parse_size

    for name, value, least in (("--threads", threads, 1), ("--limit", limit, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name} is at least {least}, got {value}")
    if not tolerance > 0:
        raise UsageError(f"--tolerance is more than 0, got {tolerance:g}")
    asked = Asked(
        data,
        split,
        limit,
        None if size is None else parse_size(size),
        threads,
        tolerance,
        layers,
    )
    console = open_console(to_stderr=as_json)
    original = None if run is None else load_trained(run, weights)
    done = verify_file(file, asked, original=original, say=partial(print_plain, console))
    if as_json:
        print_json([row.to_json() for row in done.rows])
    else:
        console.print(verify_table(done.rows, tolerance))
    for line in done.remarks:
        print_plain(console, line)
    done.require()


def verify_table(rows: list[Row], tolerance: float) -> Table:
    """One row a runtime."""
    from rich.table import Table

    table = Table(title="the same file where it runs")
    for name in ("runtime", "", "score", "box", "changed", "AP", "ms/image", "MiB", "says"):
        table.add_column(name, justify="left" if name in ("runtime", "", "says") else "right")
    for row in rows:
        if not row.ran:
            table.add_row(row.runtime, row.version, *[""] * 6, row.failure)
            continue
        table.add_row(
            row.runtime,
            row.version,
            f"{row.score:.1e}",
            f"{row.box:.1e}",
            str(row.changed),
            "" if row.ap is None else f"{100 * row.ap:.1f}",
            f"{row.ms:.1f}",
            f"{row.peak_mib:.0f}",
            row.says(tolerance),
        )
    return table
