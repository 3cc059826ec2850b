"""`teach-detr sql`, `select` and `check`: questions to a box store."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from box_store.errors import UsageError
from box_store.patience import if_it_takes
from teach_detr.commands.options import (
    Annotations,
    Data,
    DeniedLicences,
    Licences,
    Parameters,
    SeveralAnnotations,
    Split,
    SplitShown,
    SplitsShown,
    Store,
    truth,
    truth_and_split,
    truths_and_split,
)
from teach_detr.terminal import AsJson, open_console, print_json, table


def sql(
    store: Store,
    query: Annotated[str | None, typer.Argument(help="SQL; without any, a prompt opens")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the query here")] = None,
    example: Annotated[
        str | None, typer.Option(help="Run a documented query; `list` lists them")
    ] = None,
    annotations: SeveralAnnotations = None,
    data: Data = None,
    split: SplitsShown = None,
    licence: Licences = None,
    deny_licence: DeniedLicences = None,
    param: Parameters = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", help="Of the rows")
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="Write the rows to this file")] = None,
    as_json: AsJson = False,
) -> None:
    """Run SQL over a store: views boxes, images, runs, teachers, categories, and truth.

    Example: teach-detr sql boxes "SELECT teacher, category, count(*) n FROM boxes GROUP BY ALL"
    """
    from box_store.query import example_queries, open_store, run_sql
    from teach_detr.sql.shell import as_table, as_text, prompt, write_rows

    if as_json and out is None:
        if form not in ("table", "json"):
            raise UsageError(f"--json and --format {form} contradict each other: give one of them")
        form = "json"
    if example == "list":
        rows = [
            (q.name, q.title, "--annotations" * q.needs_truth) for q in example_queries().values()
        ]
        if as_json:
            keys = ("example", "title", "needs")
            print_json([dict(zip(keys, row, strict=True)) for row in rows])
            return
        open_console().print(table(("example", "what it shows", "needs"), rows))
        return
    text = _query_text(query, file, example)
    if text is None and as_json:
        raise UsageError("--json answers a query: give one, or leave it out and a prompt opens")
    places, shown = truths_and_split(annotations, data, split)
    with if_it_takes(f"opening {store}"):
        connection = open_store(
            store,
            places,
            split=shown,
            licences=licence or (),
            deny_licences=deny_licence or (),
        )
    try:
        if text is None:
            prompt(connection, open_console(), Path.home() / ".local/state/teach-detr/sql_history")
            return
        with if_it_takes(f"asking {store}"):
            rows = run_sql(connection, text, _parameters(param))
    finally:
        connection.close()
    if out is not None:
        write_rows(rows, form, out)
        if as_json:
            print_json({"out": str(out), "rows": rows.num_rows})
            return
        Console(stderr=True).print(f"{out}: {rows.num_rows} rows", highlight=False)
    elif form == "table":
        open_console().print(as_table(rows))
    else:
        sys.stdout.write(as_text(rows, form))


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
    data: Data = None,
    split: SplitShown = None,
    licence: Licences = None,
    deny_licence: DeniedLicences = None,
    param: Parameters = None,
    as_json: AsJson = False,
) -> None:
    """Write the boxes that a query yields as a file that `student-train train --boxes` trains on.

    Example: teach-detr select boxes "SELECT * FROM boxes WHERE score > 0.3" --out sure.arrow
    """
    from box_store.query import select_sql
    from box_store.selection.file import Selection

    place, shown = truth_and_split(annotations, data, split)
    with if_it_takes(f"writing {out}"):
        select_sql(
            store,
            query,
            out,
            annotations=place,
            split=shown,
            parameters=_parameters(param),
            images=images,
            licences=licence or (),
            deny_licences=deny_licence or (),
        )
    counts = Selection.open(out).counts()
    if as_json:
        sets = {name: {"images": images, "boxes": n} for name, (images, n) in counts.items()}
        print_json({"out": str(out), "teachers": sets})
        return
    rows = [(name, str(n_images), str(n_boxes)) for name, (n_images, n_boxes) in counts.items()]
    open_console().print(table(("teacher", "images", "boxes"), rows, numbers=(1, 2)))
    open_console().print(f"next      student-train train --boxes {out} ...", highlight=False)


def check(
    store: Store,
    annotations: Annotations = None,
    data: Data = None,
    split: Split = None,
    as_json: AsJson = False,
) -> None:
    """Read everything in a store and report what is wrong with it; ends with 1 if anything is."""
    from box_store.check import check_store

    with if_it_takes(f"reading everything in {store}"):
        report = check_store(store, truth(annotations, data, split))
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
