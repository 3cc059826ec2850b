"""The command `verify`: an exported file in every runtime that is here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from box_store.errors import TeachDetrError, UsageError
from student_train.commands.terminal import Json, Weights, open_console, print_json, print_plain

if TYPE_CHECKING:
    from rich.table import Table

    from student_train.export.verify import Row

# in what OpenVINO computes by itself on CPUs that have bfloat16
_OPENVINO = (
    "openvino  computes in bfloat16 by itself where the CPU has it: compile with "
    "INFERENCE_PRECISION_HINT=f32"
)


def verify(
    file: Annotated[Path, typer.Argument(help=".onnx of any tool, or a student's .pt2.")],
    run: Annotated[
        Path | None, typer.Option(help="The run that it was made from, which says what is right.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set for photos and AP: COCO, YOLO, Pascal VOC, ...")
    ] = None,
    split: Annotated[str, typer.Option(help="Its split.")] = "val2017",
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
    runtime computes something else, and names the first layer that differs.
    """
    from student_train.export.verifying import verify_file

    console = open_console(to_stderr=as_json)
    if size is not None and not all(side.isdigit() for side in size.lower().split("x")):
        raise UsageError(f"--size is HEIGHTxWIDTH, got {size!r}")
    sides = None if size is None else [int(side) for side in size.lower().split("x")]
    if sides is not None and len(sides) != 2:
        raise UsageError(f"--size is HEIGHTxWIDTH, got {size!r}")
    done = verify_file(
        file,
        run=run,
        data=data,
        split=split,
        limit=limit,
        size=None if sides is None else (sides[0], sides[1]),
        threads=threads,
        tolerance=tolerance,
        layers=layers,
        weights=weights,
        say=partial(print_plain, console),
    )
    if as_json:
        print_json([row.to_json() for row in done.rows])
    else:
        console.print(verify_table(done.rows, tolerance))
    for line in done.remarks:
        print_plain(console, line)
    bad = [row.runtime for row in done.rows if row.ran and not row.within(tolerance)]
    if "openvino" in bad:
        print_plain(console, _OPENVINO)
    failed = [row.runtime for row in done.rows if row.failure and not row.missing]
    if bad or failed:
        raise TeachDetrError(
            f"{file} computes something else in {', '.join([*bad, *failed])}: more than "
            f"{tolerance:g} from {done.reference}"
        )
    if not any(row.ran for row in done.rows):
        raise TeachDetrError(f"{file} ran nowhere")


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
            "the same" if row.within(tolerance) else "something else",
        )
    return table
