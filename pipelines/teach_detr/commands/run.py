"""The command `run`: both stages from one file."""

from pathlib import Path
from typing import Annotated

import typer

from teach_detr.commands.options import DryRun, FileOverrides
from teach_detr.terminal import AsJson, open_console, print_json


def run(
    config: Annotated[Path, typer.Argument(help="TOML file of the run; see docs/runs.md")],
    overrides: FileOverrides = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Both stages from one file: label, check, train, evaluate, compare.

    Stopped at any time, the same command goes on. On a Ray cluster with [cluster] address.

    Example: teach-detr run yolox.toml student.preset=dino-r50-4scale --dry-run
    """
    from student_train.settings.overrides import parse_assignments
    from teach_detr.runs.run import run_file

    console = open_console(to_stderr=as_json)
    report = run_file(config, parse_assignments(overrides or []), dry_run=dry_run, console=console)
    if as_json:
        print_json(report)
