"""`teach-detr experiment`: the command."""

from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import UsageError
from teach_detr.terminal import AsJson, open_console, print_json


def experiment(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file of the experiment; see docs/experiments.md")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values over the file's")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Without a file: your data set, in COCO's layout")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="... its box store, filled")] = None,
    preset: Annotated[
        str, typer.Option(help="... the student, of `student-train presets`")
    ] = "dino-r50-4scale",
    images: Annotated[
        int | None, typer.Option(min=1, help="... how many training images, drawn at random")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="... how long each run is")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="... runs of every arm")] = 3,
    init: Annotated[Path | None, typer.Option(help="... weights that all runs start from")] = None,
    out: Annotated[
        Path | None, typer.Option(help="... folder for everything it makes  [default: experiment]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and how long; write nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Will teachers improve my student on my labels, and how sure is that?

    A grid of arms over seeds, each a training run; the end is a table of paired differences with
    intervals, and a page. Stopped at any time, the same command goes on.

    With --data and --store the arms are: no teachers, each teacher alone, all in parallel, all
    fused. A file says anything else.

    Example: teach-detr experiment --data my --store boxes --images 2000 --epochs 12

    Example: teach-detr experiment labels.toml --dry-run
    """
    from student_train.settings.overrides import parse_assignments
    from teach_detr.experiment import read_experiment, run_experiment
    from teach_detr.experiment.outcome import finite
    from teach_detr.experiment.own_data import own_data

    console = open_console(to_stderr=as_json)
    if config is not None and "=" in str(config):
        overrides, config = [str(config), *(overrides or [])], None
    values = parse_assignments(overrides or [])
    if config is not None:
        if data is not None or store is not None:
            raise UsageError("give a file, or --data and --store, not both")
        plan, folder = read_experiment(config, values), config.parent
    else:
        if data is None or store is None:
            raise UsageError(
                "what should be compared? Give a file, or --data DIR with --store STORE; "
                "teach-detr experiment --help explains both"
            )
        own = {"images": images, "epochs": epochs, "init": init, "out": out or Path("experiment")}
        plan, folder = own_data(data, store, preset, seeds, values, **own), Path()
    outcome = run_experiment(plan, folder, dry_run=dry_run, console=console)
    if as_json:
        print_json(finite(outcome))
