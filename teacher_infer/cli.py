"""`teacher-infer`: the commands, each in a module of `teacher_infer.commands`."""

import sys
from collections.abc import Sequence

import typer

from box_store.errors import TeachDetrError
from teacher_infer.commands.bench import bench_service
from teacher_infer.commands.listing import list_adapters
from teacher_infer.commands.run import plan, run
from teacher_infer.commands.store import export, import_file, status
from teacher_infer.commands.terminal import complain

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="""Run detectors you already have over a data set, and keep their boxes in a store.

    \b
    teacher-infer list            which detectors can teach, and their names
    teacher-infer plan ...        what a run would do, without doing it
    teacher-infer run ...         do it; again, to go on where it stopped
    teacher-infer status STORE    how far each teacher is
    teacher-infer import ...      COCO results JSON into a store
    teacher-infer export ...      COCO results JSON out of it
    teacher-infer bench ...       what the service costs beside the model
    """,
)

app.command()(plan)
app.command()(run)
app.command("bench")(bench_service)
app.command("list")(list_adapters)
app.command()(status)
app.command("import")(import_file)
app.command()(export)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through SystemExit."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="teacher-infer")
    except TeachDetrError as error:
        complain(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
