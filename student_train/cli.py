"""`student-train`: the commands, each in a module of `student_train.commands`.

Settings are given as `key=value` after the options; precedence is argument > --config file >
preset.
"""

import sys

import typer
from rich.console import Console

from box_store.errors import TeachDetrError
from student_train.commands.bench import bench
from student_train.commands.export import export
from student_train.commands.importing import import_file
from student_train.commands.parity import parity
from student_train.commands.presets import presets
from student_train.commands.results import compare, evaluate, predict
from student_train.commands.train import train
from student_train.commands.verify import verify

app = typer.Typer(
    name="student-train",
    help="Train, evaluate and use DETR students, with or without the boxes of teachers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(train)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(compare)
app.command()(export)
app.command()(verify)
app.command()(bench)
app.command("import")(import_file)
app.command()(presets)
app.command()(parity)


def main() -> None:
    """Run the command line; a mistake of the user ends in one sentence and an exit code."""
    try:
        app()
    except TeachDetrError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
