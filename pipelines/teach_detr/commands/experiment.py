"""`teach-detr experiment`: the command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from box_store.errors import UsageError
from teach_detr.commands.options import DryRun, FileOverrides
from teach_detr.terminal import AsJson, open_console, print_json


def experiment(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file of the experiment; see docs/experiments.md")
    ] = None,
    overrides: FileOverrides = None,
    data: Annotated[Path | None, typer.Option(help="Your data set, in COCO's layout")] = None,
    store: Annotated[Path | None, typer.Option(help="Its box store, filled")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="The student, of `student-train presets`  [default: dino-r50-4scale]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many training images, drawn at random")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="How long each run is")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of every arm  [default: 5]")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Weights that all runs start from")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything it makes  [default: experiment]")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Which teachers to use, in minutes: small student, short runs, a race"
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Will teachers improve my student on my labels, and how sure is that?

    A grid of arms over seeds, each a training run; the end is a table of paired differences with
    intervals, and a page. Stopped at any time, the same command goes on.

    With --data and --store the arms are: no teachers, each teacher alone, all in parallel, all
    fused. A file says anything else; options are stronger than what it says.

    Splits of other names: data.train_split=NAME data.val_split=NAME. A layout other than COCO's:
    data.train_images=DIR data.train_annotations=FILE data.val_images=DIR data.val_annotations=FILE.

    Example: teach-detr experiment --data my --store boxes --images 2000 --epochs 12

    Example: teach-detr experiment --quick --data my --store boxes

    Example: teach-detr experiment labels.toml --dry-run
    """
    from student_train.commands.terminal import print_plain
    from student_train.settings.overrides import parse_assignments
    from student_train.training.choice_table import choice_notes, choice_table
    from teach_detr.experiment import read_experiment, run_experiment
    from teach_detr.experiment.outcome import finite
    from teach_detr.experiment.own_data import option_layers, own_data
    from teach_detr.experiment.quick import answers, quick_plan, with_answers

    console = open_console(to_stderr=as_json)
    if config is not None and "=" in str(config):
        overrides, config = [str(config), *(overrides or [])], None
    values = parse_assignments(overrides or [])
    options = option_layers(
        data=data,
        store=store,
        preset=preset,
        images=images,
        epochs=epochs,
        seeds=seeds,
        init=init,
        out=out,
    )
    choices: list[Any] = []
    if config is not None and quick:
        raise UsageError(
            "--quick makes a plan of its own from --data and --store: leave the file out, or write "
            "`race = true` into it"
        )
    if config is not None:
        plan, folder = read_experiment(config, values, options), config.parent
    else:
        if store is None or not (data or {"data.train_images", "data.root"} & set(values)):
            raise UsageError(
                "what should be compared? Give a file, or --data DIR with --store STORE; "
                "teach-detr experiment --help explains both"
            )
        folder = Path()
        if quick:
            plan, choices = quick_plan(store, options, values)
            console.print(choice_table(choices))
            for line in choice_notes(choices):
                print_plain(console, f"teacher   {line}")
        else:
            plan = own_data(store, options, values)
    if quick and len(plan.arms) == 1:
        # nothing to train: what the annotations say is the answer
        found, outcome = answers(choices, {}), {}
    else:
        outcome = run_experiment(plan, folder, dry_run=dry_run, console=console)
        found = answers(choices, outcome) if quick and not dry_run else []
    for answer in found:
        print_plain(console, f"answer    {answer}")
    if as_json:
        print_json(finite(with_answers(outcome, found) if quick else outcome))
