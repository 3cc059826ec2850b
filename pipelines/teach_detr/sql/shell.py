"""Queries over a store from the command line: one result in a chosen format, or a prompt."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from box_store.errors import TeachDetrError, UsageError
from box_store.query import example_queries, example_query, run_sql
from teach_detr.sql.completion import DELIMITERS, Completer, macro_parameters, view_columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Format = Literal["table", "csv", "json", "parquet"]

# a screen holds no more; files hold everything
MAX_ROWS_SHOWN = 200

_HELP = """\
End a query with a semicolon; it may take several lines.
.tables        the views with their columns, the macros with their parameters
.examples      the documented queries; .example NAME runs one
.help  .quit   (Ctrl-D leaves as well)"""


def as_text(table: pa.Table, form: Format) -> str:
    """The rows as CSV with a header line, or as a JSON list of objects.

    Raises:
        UsageError: `form` is not text.
    """
    rows = table.to_pylist()
    if form == "json":
        return json.dumps(rows, indent=1, default=str, ensure_ascii=False) + "\n"
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([row[name] for name in table.column_names] for row in rows)
        return buffer.getvalue()
    raise UsageError(f"--format {form} needs --out FILE: expected one of table, csv, json here")


def write_rows(table: pa.Table, form: Format, out: Path) -> None:
    """Write the rows to a file; `table` as aligned text.

    Raises:
        TeachDetrError: the file cannot be written.
    """
    try:
        if form == "parquet":
            pq.write_table(table, out, compression="zstd")
        elif form == "table":
            with out.open("w", encoding="utf-8") as file:
                Console(file=file, width=200).print(as_table(table, limit=None))
        else:
            out.write_text(as_text(table, form), encoding="utf-8")
    except OSError as error:
        raise TeachDetrError(f"cannot write {out}: {error.strerror or error}") from error


def as_table(table: pa.Table, limit: int | None = MAX_ROWS_SHOWN) -> Table:
    """The rows for a screen: numbers to the right, at most `limit` of them."""
    shown = table if limit is None else table.slice(0, limit)
    cut = table.num_rows - shown.num_rows
    view = Table(
        caption=f"{cut} more rows: --out FILE keeps all" if cut else None, caption_justify="left"
    )
    for field in table.schema:
        numeric = (
            pa.types.is_integer(field.type)
            or pa.types.is_floating(field.type)
            or pa.types.is_decimal(field.type)
        )
        view.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for row in shown.to_pylist():
        view.add_row(*(_cell(row[name]) for name in table.column_names))
    return view


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    return str(value)


def prompt(connection: "DuckDBPyConnection", console: Console, history: Path) -> None:
    """Read queries until the end of input; a faulty one is answered with its error.

    Tab completes views, columns, macros and words; `history` is a file that outlives the prompt.
    """
    columns, macros = view_columns(connection), macro_parameters(connection)
    completer = Completer(
        columns, [f"{name}(" for name in macros], example_queries(), _line_before_cursor
    )
    with _line_editing(completer, history):
        console.print(f"views: {', '.join(columns)}.  .help for help, Ctrl-D to leave.")
        for text in _statements(input):
            try:
                if text.startswith("."):
                    if not _command(text, connection, console, columns | macros):
                        return
                else:
                    console.print(as_table(run_sql(connection, text)))
            except TeachDetrError as error:
                console.print(f"error: {error}", style="red", markup=False, highlight=False)


def _statements(read: Callable[[str], str]) -> Iterable[str]:
    """Statements as they are completed: up to a semicolon, or a line that starts with a dot."""
    pending: list[str] = []
    while True:
        try:
            line = read("sql> " if not pending else "...> ").rstrip()
        except EOFError:
            return
        except KeyboardInterrupt:
            pending = []
            continue
        if not pending and line.startswith("."):
            yield line
        elif line:
            pending.append(line)
            if line.endswith(";"):
                yield "\n".join(pending)
                pending = []


def _command(
    text: str, connection: "DuckDBPyConnection", console: Console, names: dict[str, list[str]]
) -> bool:
    """Carry out a dot command; False ends the prompt."""
    word, _, rest = text.partition(" ")
    if word in (".quit", ".exit", ".q"):
        return False
    if word == ".tables":
        for name, columns in names.items():
            console.print(f"{name}({', '.join(columns)})", markup=False, highlight=False)
    elif word == ".examples":
        for query in example_queries().values():
            console.print(f"{query.name}: {query.title}", markup=False, highlight=False)
    elif word == ".example":
        found = example_query(rest.strip())
        console.print(found.sql, markup=False, highlight=False)
        console.print(as_table(run_sql(connection, found.sql)))
    else:
        console.print(_HELP, markup=False, highlight=False)
    return True


def _line_before_cursor() -> str:
    import readline

    return readline.get_line_buffer()[: readline.get_endidx()]


class _line_editing:
    """Completion and a history file for `input`, where Python has readline."""

    def __init__(self, completer: Completer, history: Path) -> None:
        self._completer = completer
        self._history = history

    def __enter__(self) -> None:
        try:
            import readline
        except ImportError:
            return
        readline.set_completer(self._completer)
        readline.set_completer_delims(DELIMITERS)
        # macOS has another line editor under the name of readline
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        if self._history.exists():
            try:
                readline.read_history_file(self._history)
            except OSError:
                readline.clear_history()

    def __exit__(self, *exception: object) -> None:
        try:
            import readline
        except ImportError:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(1000)
            readline.write_history_file(self._history)
        except OSError:
            # a read-only home folder costs the history, not the session
            return
