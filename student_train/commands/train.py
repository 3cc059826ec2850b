"""The command `train`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import UsageError
from box_store.places.locations import as_typed
from student_train.commands.terminal import (
    Json,
    Overrides,
    is_other_rank,
    open_console,
    print_json,
    print_plain,
)


def train(
    overrides: Overrides = None,
    preset: Annotated[str | None, typer.Option(help="What to train; see `presets`.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of settings, weaker than arguments; or a run's config.json, all of it."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set as it lies: COCO, YOLO, Pascal VOC, CSV, ...")
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="Split to train on.")] = None,
    val_split: Annotated[str | None, typer.Option(help="Split to evaluate on, or none.")] = None,
    store: Annotated[Path | None, typer.Option(help="Box store with teachers' boxes.")] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Selection file in place of a store (teach-detr select).")
    ] = None,
    teachers: Annotated[
        str | None, typer.Option(help="Teachers by name, separated by commas; all; none.")
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Teachers' scores as `teach-detr calibrate` made them."),
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: run, .safetensors, official file, folder of transformers, "
            "hub:ORG/NAME[@REVISION]."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; a path or a URL.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run; train and write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a student into the folder OUT, evaluating as it goes."""
    if out is None:
        raise UsageError("--out is missing: the folder of the run")
    place = as_typed(out)
    console = open_console(to_stderr=as_json)
    if not is_other_rank():
        # what is imported now takes seconds
        print_plain(console, f"starting  {place}")

    from student_train.config import changed, resolve
    from student_train.evaluation.tables import class_table, metrics_table
    from student_train.presets import load_preset
    from student_train.runs.recorded import read_settings
    from student_train.settings.origin import ARGUMENT, Kind, Origin
    from student_train.settings.overrides import Layer, parse_assignments, read_toml
    from student_train.training.describing import DryRun
    from student_train.training.launch import resumed
    from student_train.training.launch import train as run_training

    options = {
        "data.root": ("--data", data),
        "data.train_split": ("--train-split", train_split),
        "data.val_split": ("--val-split", val_split),
        "teachers.store": ("--store", store),
        "teachers.boxes": ("--boxes", boxes),
        "teachers.names": ("--teachers", teachers),
        "teachers.calibrated": ("--calibrated", "all" if calibrated else None),
        "init": ("--init", init),
    }
    arguments = [
        Layer(Origin(Kind.ARGUMENT, option), {key: value})
        for key, (option, value) in options.items()
        if value is not None
    ]
    arguments.append(Layer(ARGUMENT, parse_assignments(overrides or [])))
    if config is not None and config.suffix == ".json":
        if preset is not None:
            raise UsageError(f"{config} is a whole configuration: leave --preset out")
        resolved = changed(read_settings(config), arguments)
    else:
        file = read_toml(config) if config else {}
        name = preset or file.pop("preset", None)
        if name is None and resume and (place / "config.json").exists():
            resolved = resumed(place, arguments)
        elif name is None:
            raise UsageError("--preset is missing; `student-train presets` lists what there is")
        else:
            resolved = resolve(load_preset(str(name)), file, str(config), arguments)

    done = run_training(
        resolved,
        place,
        console,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        command=sys.argv,
    )
    if is_other_rank():
        return
    if isinstance(done, DryRun):
        if as_json:
            print_json(done.to_json())
        return
    if as_json:
        print_json({"run": str(place), "metrics": done and done.metrics.to_json()})
        return
    if done is not None:
        console.print(class_table(done.metrics))
        console.print(metrics_table("after the last step, in percent", done.metrics))
    console.print(f"weights   {place / 'checkpoints' / 'best.safetensors'}", soft_wrap=True)
    console.print(f"curves    {place / 'metrics.jsonl'}", soft_wrap=True)
    console.print(f"next      student-train predict {place} IMAGES...", soft_wrap=True)
