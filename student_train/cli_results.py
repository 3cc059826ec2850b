"""Commands that use a trained student: `eval`, `predict`."""

from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import TeachDetrError
from student_train.terminal import (
    Device,
    Json,
    Overrides,
    Weights,
    open_console,
    print_json,
    print_plain,
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, or a .safetensors file of a run.")],
    overrides: Overrides = None,
    data: Annotated[Path | None, typer.Option(help="Data set in COCO layout.")] = None,
    split: Annotated[str | None, typer.Option(help="Split; by default the run's own.")] = None,
    weights: Weights = "best",
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; by default RUN/results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run on a split with pycocotools; writes the detections as COCO results."""
    from student_train.commands import evaluate_run
    from student_train.overrides import parse_assignments
    from student_train.tables import class_table, metrics_table

    console = open_console(to_stderr=as_json)
    done = evaluate_run(run, data, split, weights, device, out, parse_assignments(overrides or []))
    for problem in done.evaluation.problems:
        print_plain(console, f"skipped: {problem}")
    metrics = done.evaluation.metrics
    if as_json:
        print_json(metrics.to_json() | {"run": str(run), "split": done.split})
        return
    console.print(class_table(metrics))
    title = f"{done.split}, {metrics.n_images} images, {done.weights}, in percent"
    console.print(metrics_table(title, metrics))
    console.print(f"results   {done.path}", soft_wrap=True)


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder, or a .safetensors file of a run.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures; by default RUN/predictions.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score that is kept.")] = 0.3,
    weights: Weights = "best",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Detect in images; draws the boxes and writes them as JSON."""
    from student_train.commands import predict_images

    console = open_console(to_stderr=as_json)
    done = predict_images(run, images, out, threshold, weights, device)
    for row in done.rows:
        if "error" in row:
            print_plain(console, f"skipped: {row['error']}")
            continue
        best = ", ".join(f"{d['category']} {d['score']:.2f}" for d in row["detections"][:6])
        console.print(f"{row['file']}: {best or 'nothing'}", markup=False, soft_wrap=True)
    if as_json:
        print_json(done.rows)
    console.print(f"pictures  {done.folder}", soft_wrap=True)
    if done.n_read == 0:
        raise TeachDetrError("none of the images could be read")
