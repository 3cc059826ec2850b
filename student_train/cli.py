"""`student-train`: train, eval, predict, import, export, presets, parity, bench.

Settings are given as `key=value` after the options; precedence is argument > --config file >
preset.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from box_store.errors import TeachDetrError, UsageError
from box_store.places.locations import as_typed
from student_train.commands.bench import bench
from student_train.commands.export import export
from student_train.commands.importing import import_file
from student_train.commands.results import compare, evaluate, predict
from student_train.commands.terminal import Json, Overrides, is_other_rank, open_console, print_json

app = typer.Typer(
    name="student-train",
    help="Train, evaluate and use DETR students, with or without the boxes of teachers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PUBLISHED = (
    "AP and + Aux (with teachers): COCO val2017 in percent, as the methods' authors published them "
    "for full runs. This project has not measured them. Sources:"
)


@app.command()
def train(
    overrides: Overrides = None,
    preset: Annotated[str | None, typer.Option(help="What to train; see `presets`.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings, weaker than arguments.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data set in COCO layout.")] = None,
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
        Path | None, typer.Option(help="Weights to start from: run, .safetensors, official file.")
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
    from student_train.config import resolve
    from student_train.evaluation.tables import class_table, metrics_table
    from student_train.presets import load_preset
    from student_train.settings.overrides import Layer, parse_assignments, read_toml
    from student_train.training.launch import resumed
    from student_train.training.launch import train as run_training

    if out is None:
        raise UsageError("--out is missing: the folder of the run")
    place = as_typed(out)
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
        Layer(f"argument {option}", {key: value})
        for key, (option, value) in options.items()
        if value is not None
    ]
    arguments.append(Layer("argument", parse_assignments(overrides or [])))
    file = read_toml(config) if config else {}
    name = preset or file.pop("preset", None)
    if name is None and resume and (place / "config.json").exists():
        resolved = resumed(place, arguments)
    elif name is None:
        raise UsageError("--preset is missing; `student-train presets` lists what there is")
    else:
        resolved = resolve(load_preset(str(name)), file, str(config), arguments)

    console = open_console(to_stderr=as_json)
    evaluation = run_training(
        resolved,
        place,
        console,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        command=sys.argv,
    )
    if is_other_rank() or dry_run:
        return
    if as_json:
        print_json({"run": str(place), "metrics": evaluation and evaluation.metrics.to_json()})
        return
    if evaluation is not None:
        console.print(class_table(evaluation.metrics))
        console.print(metrics_table("after the last step, in percent", evaluation.metrics))
    console.print(f"weights   {place / 'checkpoints' / 'best.safetensors'}", soft_wrap=True)
    console.print(f"curves    {place / 'metrics.jsonl'}", soft_wrap=True)
    console.print(f"next      student-train predict {place} IMAGES...", soft_wrap=True)


app.command("eval")(evaluate)
app.command()(predict)
app.command()(compare)
app.command()(export)
app.command()(bench)
app.command("import")(import_file)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Show every setting of this preset.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as docs/students.md has it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what can be trained, or all settings of one preset."""
    from student_train.commands.tables import presets_table
    from student_train.presets.listing import preset_rows, preset_settings
    from student_train.presets.markdown import presets_markdown

    console = open_console()
    if markdown:
        print(presets_markdown())
        return
    if name is None:
        rows = preset_rows()
        if as_json:
            print_json([row.to_json() for row in rows])
            return
        console.print(presets_table([(row.preset, row.config, row.n_parameters) for row in rows]))
        for row in rows:
            console.print(f"{row.preset.name}: {row.preset.use}", highlight=False)
        console.print(PUBLISHED, highlight=False)
        for row in rows:
            if row.preset.published:
                console.print(
                    f"  {row.preset.name}: {row.preset.published.source}", highlight=False
                )
        return
    found = preset_settings(name)
    if as_json:
        print_json(found)
        return
    for key, row in found["settings"].items():
        origin = f"  ({row['origin']})" if row["origin"] != "default" else ""
        console.print(f"{key} = {row['text']}{origin}", markup=False, soft_wrap=True)
        if row["help"]:
            console.print(f"    {row['help']}", markup=False, highlight=False, style="dim")


@app.command()
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
    for row in iterate_parity(folder, sets or None, double):
        rows.append(row)
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


def main() -> None:
    """Run the command line; a mistake of the user ends in one sentence and an exit code."""
    try:
        app()
    except TeachDetrError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
