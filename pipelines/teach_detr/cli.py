"""`teach-detr`: what spans both stages. Each command's work is in the module of its name."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from box_store.errors import TeachDetrError, UsageError
from teach_detr.cli_experiment import experiment
from teach_detr.cli_inspect import export, report
from teach_detr.cli_scenes import scenes
from teach_detr.cli_teachers import calibrate, teachers
from teach_detr.terminal import AsJson, open_console, print_json, table

app = typer.Typer(
    name="teach-detr",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Train DETR detectors better with the detectors you already have.

    teach-detr demo                      the whole thing on drawn scenes: no data, weights or GPU
    teach-detr run CONFIG.toml           teachers, store, student and comparison from one file
    teach-detr experiment ...            do teachers help, and how sure is that
    teach-detr scenes OUT                drawn scenes to experiment with, and teachers for them
    teach-detr sql STORE "SELECT ..."    query what teachers saw
    teach-detr teachers STORE ...        how good each teacher is
    teach-detr calibrate STORE ...       scores that are chances of being right
    teach-detr report STORE ...          a page about them, to open in a browser
    teach-detr export STORE ...          boxes as COCO, YOLO, CSV or for FiftyOne
    teach-detr doctor                    what this machine has

    Labelling your own images is `teacher-infer`, training on them is `student-train`.
    """,
)

Store = Annotated[Path, typer.Argument(help="The box store: a folder")]
Annotations = Annotated[
    Path | None, typer.Option(help="COCO annotations to attach as the table `truth`")
]
Licences = Annotated[
    list[str] | None,
    typer.Option(help="Only teachers of this licence, such as 'Apache*'; repeat it for more"),
]
DeniedLicences = Annotated[
    list[str] | None, typer.Option(help="Leave out teachers of this licence, such as 'AGPL*'")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="Value of $NAME in the query"),
]


@app.command()
def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="A tenth of the size: does it run, not does it help")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything it makes: demo, or demo-fast")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew in that folder")] = False,
) -> None:
    """Scenes, teachers, box store, a small DINO without and with teachers, and the comparison.

    Stopped at any time, the same command goes on. Works offline.
    """
    from teach_detr.demo import run_demo

    run_demo(
        out or Path("demo-fast" if fast else "demo"), fast=fast, fresh=fresh, console=open_console()
    )


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file of the run; see docs/runs.md")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values over the file's")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Narrate every stage; write nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Both stages from one file: label, check, train, evaluate, compare.

    Stopped at any time, the same command goes on. On a Ray cluster with [cluster] address.

    Example: teach-detr run yolox.toml student.preset=dino-r50-4scale --dry-run
    """
    from student_train.overrides import parse_assignments
    from teach_detr.run import run_file

    console = Console(stderr=True) if as_json else open_console()
    report = run_file(config, parse_assignments(overrides or []), dry_run=dry_run, console=console)
    if as_json:
        print_json(report)


app.command()(scenes)


@app.command("demo-weights")
def demo_weights(
    work: Annotated[Path, typer.Option(help="Folder for scenes and states; resumed if it exists")],
    out: Annotated[
        Path | None, typer.Option(help="Where the weights go; by default the package's own folder")
    ] = None,
    part: Annotated[
        Literal["all", "teacher", "backbone", "student", "report"],
        typer.Option(help="Make only this one"),
    ] = "all",
    log: Annotated[Path | None, typer.Option(help="Markdown file for the log")] = None,
) -> None:
    """Make the weights that the demo starts from, on scenes other than the demo's."""
    from teach_detr.demo_weights import make_weights

    make_weights(work, out, part, log, open_console())


@app.command()
def sql(
    store: Store,
    query: Annotated[str | None, typer.Argument(help="SQL; without any, a prompt opens")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the query here")] = None,
    example: Annotated[
        str | None, typer.Option(help="Run a documented query; `list` lists them")
    ] = None,
    annotations: Annotations = None,
    licence: Licences = None,
    deny_licence: DeniedLicences = None,
    param: Parameters = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", help="Of the rows")
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="Write the rows to this file")] = None,
) -> None:
    """Run SQL over a store: views boxes, images, runs, teachers, categories, and truth.

    Example: teach-detr sql boxes "SELECT teacher, category, count(*) n FROM boxes GROUP BY ALL"
    """
    from box_store.query import example_queries, open_store, run_sql
    from teach_detr.sql_shell import as_table, as_text, prompt, write_rows

    if example == "list":
        rows = [
            (q.name, q.title, "--annotations" * q.needs_truth) for q in example_queries().values()
        ]
        open_console().print(table(("example", "what it shows", "needs"), rows))
        return
    text = _query_text(query, file, example)
    connection = open_store(
        store, annotations, licences=licence or (), deny_licences=deny_licence or ()
    )
    try:
        if text is None:
            prompt(connection, open_console(), Path.home() / ".local/state/teach-detr/sql_history")
            return
        rows = run_sql(connection, text, _parameters(param))
    finally:
        connection.close()
    if out is not None:
        write_rows(rows, form, out)
        Console(stderr=True).print(f"{out}: {rows.num_rows} rows", highlight=False)
    elif form == "table":
        open_console().print(as_table(rows))
    else:
        sys.stdout.write(as_text(rows, form))


@app.command()
def select(
    store: Store,
    query: Annotated[
        str, typer.Argument(help="Yields image_id, category_id, score, x1..y2, maybe teacher")
    ],
    out: Annotated[Path, typer.Option(help="Selection file to write")],
    images: Annotated[
        str | None,
        typer.Option(help="Query for the image_id of every image that the boxes speak for"),
    ] = None,
    annotations: Annotations = None,
    licence: Licences = None,
    deny_licence: DeniedLicences = None,
    param: Parameters = None,
) -> None:
    """Write the boxes that a query yields as a file that `student-train train --boxes` trains on.

    Example: teach-detr select boxes "SELECT * FROM boxes WHERE score > 0.3" --out sure.arrow
    """
    from box_store.query import select_sql
    from box_store.selection_file import Selection

    select_sql(
        store,
        query,
        out,
        annotations=annotations,
        parameters=_parameters(param),
        images=images,
        licences=licence or (),
        deny_licences=deny_licence or (),
    )
    counts = Selection.open(out).counts()
    rows = [(name, str(n_images), str(n_boxes)) for name, (n_images, n_boxes) in counts.items()]
    open_console().print(table(("teacher", "images", "boxes"), rows, numbers=(1, 2)))
    open_console().print(f"next      student-train train --boxes {out} ...", highlight=False)


@app.command()
def check(store: Store, annotations: Annotations = None, as_json: AsJson = False) -> None:
    """Read everything in a store and report what is wrong with it; ends with 1 if anything is."""
    from box_store.check import check_store

    report = check_store(store, annotations)
    if as_json:
        print_json(report.to_json())
    else:
        for problem in report.problems:
            place = " ".join(part for part in (problem.file, problem.where) if part)
            open_console().print(
                f"{problem.severity}: {problem.kind}: {place}: {problem.message} {problem.remedy}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        counted = ", ".join(f"{n} {what}" for what, n in report.counts.items())
        n = len(report.problems)
        verdict = "no problem" if not n else "1 finding" if n == 1 else f"{n} findings"
        open_console().print(f"{store}: {verdict} ({counted})", markup=False, highlight=False)
    if not report.ok:
        raise typer.Exit(1)


app.command()(teachers)
app.command()(calibrate)
app.command()(experiment)
app.command()(report)
app.command()(export)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Versions, devices, attention backend and why, extras, licences, what collides.

    Ends with 1 if something was found that will go wrong.
    """
    from teach_detr.doctor import diagnose, print_diagnosis

    diagnosis = diagnose()
    if as_json:
        print_json(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis, open_console())
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _query_text(query: str | None, file: Path | None, example: str | None) -> str | None:
    given = [value for value in (query, file, example) if value is not None]
    if len(given) > 1:
        raise UsageError("which query? Give one of QUERY, --file and --example")
    if example is not None:
        from box_store.query import example_query

        return example_query(example).sql
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the query {file}: {error}") from error
    return query


def _parameters(texts: Sequence[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` with the value read as JSON where it is some, else as text."""
    values: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"--param {text!r}: expected NAME=VALUE")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always leaves through SystemExit."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="teach-detr")
    except TeachDetrError as error:
        console = Console(stderr=True)
        console.print("[red]error:[/red] ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
