"""Commands that use what was trained: `eval`, `predict`, `compare`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from box_store.errors import TeachDetrError
from box_store.places.locations import as_typed
from box_store.wording import counted
from student_train.commands.terminal import (
    Device,
    Json,
    Overrides,
    Weights,
    is_other_rank,
    open_console,
    print_json,
    print_plain,
)

if TYPE_CHECKING:
    from student_train.evaluation.of_run import EvaluatedRun


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="Run folder, its .safetensors, or an exported .onnx.")
    ],
    overrides: Overrides = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set as it lies: COCO, YOLO, Pascal VOC, ...")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split; by default the run's own.")] = None,
    weights: Weights = "best",
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; by default RUN/results.")
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Print a row for every class too.")
    ] = False,
    confusion_score: Annotated[
        float, typer.Option(help="Detections below this score are no confusions.")
    ] = 0.3,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw precision-recall curves and confusions as PNG.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run on a split; writes metrics, curves, confusions and COCO results."""
    from student_train.evaluation.of_run import evaluate_run
    from student_train.evaluation.tables import class_table, metrics_table
    from student_train.settings.overrides import parse_assignments

    console = open_console(to_stderr=as_json)
    if not is_other_rank():
        print_plain(console, f"reading   {as_typed(run)}")
    done = evaluate_run(
        run,
        data,
        split,
        weights,
        device,
        out,
        parse_assignments(overrides or []),
        confusion_score=confusion_score,
        plot=plot,
        say=partial(print_plain, console),
    )
    if is_other_rank():
        return
    for problem in done.evaluation.problems:
        print_plain(console, f"skipped: {problem}")
    if done.evaluation.problems:
        print_plain(
            console,
            f"{counted(len(done.evaluation.problems), 'image')} count as without detections",
        )
    metrics = done.evaluation.metrics
    if as_json:
        print_json(metrics.to_json() | {"run": str(as_typed(run)), "split": done.source.name})
        _refuse_unwritten(done)
        return
    if per_class:
        console.print(class_table(metrics))
    counts = counted(metrics.n_images, "image")
    title = f"{done.source.label}, {counts}, {done.weights}, in percent"
    console.print(metrics_table(title, metrics))
    for annotated, detected, count in done.confusion.worst(3):
        print_plain(console, f"confused  {annotated} taken for {detected}: {count}")
    _refuse_unwritten(done)
    print_plain(console, f"results   {done.path}")
    for picture in done.pictures:
        print_plain(console, f"picture   {picture}")


def _refuse_unwritten(done: "EvaluatedRun") -> None:
    if done.unwritten:
        raise TeachDetrError(done.unwritten)


def predict(
    run: Annotated[
        Path, typer.Argument(help="Run folder, its .safetensors, or an exported .onnx.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Images, videos, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures; by default RUN/predictions.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score that is kept.")] = 0.3,
    class_floor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SCORE", help="Another lowest score for this class; repeat it."),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", help="Look at tiles of this side too: small objects."),
    ] = None,
    overlap: Annotated[
        float, typer.Option(help="Part of its side that a tile shares with the next.")
    ] = 0.2,
    every: Annotated[int, typer.Option(help="Of a video, take every so many-th frame.")] = 1,
    weights: Weights = "best",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Detect in images and videos; draws the boxes and writes them as JSON.

    Photos are turned as their EXIF orientation says. Files that predict did not draw are never
    replaced.
    """
    from box_store.selection.floors import parse_floors
    from box_store.tiling.tiles import Tiling
    from student_train.prediction.predicting import predict_images

    console = open_console(to_stderr=as_json)
    print_plain(console, f"reading   {as_typed(run)}")

    def told(row: dict[str, Any]) -> None:
        print_plain(console, prediction_line(row, threshold))

    floors = parse_floors(class_floor or ())
    tiling = None if tile is None else Tiling(tile, overlap)
    done = predict_images(run, images, out, threshold, weights, device, every, told, floors, tiling)
    if as_json:
        print_json(done.rows)
    console.print(f"pictures  {done.folder}", soft_wrap=True)
    if done.n_read == 0:
        raise TeachDetrError("none of the images could be read")


def prediction_line(row: dict[str, Any], threshold: float) -> str:
    """What was seen in an image, or the best that was not sure enough."""
    if "error" in row:
        return f"skipped: {row['error']}"
    where = f"{row['file']} frame {row['frame']}" if "frame" in row else row["file"]
    seen = ", ".join(f"{d['category']} {d['score']:.2f}" for d in row["detections"][:6])
    if seen:
        return f"{where}: {seen}"
    best = row["best"]
    about = f"the best is {best['category']} {best['score']:.3f}" if best else "no box at all"
    return f"{where}: nothing of score {threshold:g} or more ({about})"


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    plot: Annotated[Path | None, typer.Option(help="Draw the curves into this PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Put runs side by side: best metrics, curves, and the settings that differ."""
    from student_train.commands.tables import compare_table, curve_lines, difference_table
    from student_train.evaluation.compare import differences, read_run, write_plot

    console = open_console(to_stderr=as_json)
    found = [read_run(run) for run in runs]
    if plot is not None:
        write_plot(found, plot)
    if as_json:
        rows = [run.to_json() for run in found]
        print_json({"runs": rows, "differences": differences(found)})
        return
    console.print(compare_table(found))
    for line in curve_lines(found):
        print_plain(console, line)
    if len(found) > 1:
        console.print(difference_table(found))
    if plot is not None:
        print_plain(console, f"picture   {plot}")
