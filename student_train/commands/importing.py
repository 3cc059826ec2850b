"""The command `import`: an official checkpoint as a run folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from student_train.commands.terminal import Json, Overrides, open_console, print_json, print_plain


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of the official code, of detrex or mmdet (DINO), of LibreYOLO, or "
            "ours; a folder of transformers; or hub:ORG/NAME[@REVISION]."
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    family: Annotated[
        str | None, typer.Option(help="Family of the student; by default found out from the file.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Settings to build it with, in place of what its shapes say."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO file with the student's categories; by default COCO's own."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what fits of a file that does not fit.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former run.")] = False,
    as_json: Json = False,
) -> None:
    """Make a run folder of a checkpoint, for eval, predict and train --init."""
    from box_store.errors import UsageError

    if out is None:
        raise UsageError("--out is missing: the folder of the run")
    console = open_console(to_stderr=as_json)
    print_plain(console, f"reading   {file}")

    # what is imported now takes seconds
    from student_train.runs.importing import import_checkpoint
    from student_train.settings.overrides import parse_assignments

    done = import_checkpoint(
        file,
        out,
        family=family,
        preset=preset,
        annotations=annotations,
        partial=partial,
        overwrite=overwrite,
        overrides=parse_assignments(overrides or []),
        command=sys.argv,
    )
    if as_json:
        print_json(done.to_json())
        return
    report = done.report
    print_plain(console, f"student   {done.family}, {done.config.model.backbone}")
    print_plain(console, f"written by {done.source}; settings as in preset {done.config.preset}")
    print_plain(
        console,
        f"classes   {done.config.model.n_classes} ({done.class_space.kind}, "
        f"{len(done.class_space.categories)} categories)",
    )
    if done.classes:
        print_plain(console, f"          {done.classes}")
    print_plain(
        console,
        f"used      {report.loaded} parameters and buffers, {report.copies} copies of them, "
        f"{len(report.ignored)} buffers passed over",
    )
    for words, names in (
        ("filled in", done.added),
        ("assumed", done.assumed),
        ("warning", done.warnings),
        ("missing", report.missing),
        ("unused", [done.in_file(name) for name in report.unexpected]),
        ("dropped", report.misshapen),
        ("differing", report.differing),
    ):
        for name in names:
            print_plain(console, f"{words:<10}{name}")
    print_plain(console, f"next      student-train eval {out} --data DIR")
