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

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Format = Literal["table", "csv", "json", "parquet"]

# a screen holds no more; files hold everything
MAX_ROWS_SHOWN = 200

_HELP = """\
End a query with a semicolon; it may take several lines.
.tables        the views, with their columns
.examples      the documented queries; .example NAME runs one
.help  .quit   (Ctrl-D leaves as well)"""

_KEYWORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "USING", "HAVING"),
    *("COUNT", "AVG", "DISTINCT", "AND", "OR", "NOT", "NULL", "DESC", "WITH", "CASE", "WHEN"),
)


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


class Completer:
    """Completion for readline: SQL words, views and their columns."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = sorted({*words, *_KEYWORDS})
        self._found: list[str] = []

    def __call__(self, text: str, state: int) -> str | None:
        if state == 0:
            lower = text.lower()
            self._found = [word for word in self._words if word.lower().startswith(lower)]
        return self._found[state] if state < len(self._found) else None


def prompt(connection: "DuckDBPyConnection", console: Console, history: Path) -> None:
    """Read queries until the end of input; a faulty one is answered with its error."""
    columns = _columns(connection)
    with _line_editing(
        [*columns, *(name for names in columns.values() for name in names)], history
    ):
        console.print(f"views: {', '.join(columns)}.  .help for help, Ctrl-D to leave.")
        for text in _statements(input):
            try:
                if text.startswith("."):
                    if not _command(text, connection, console, columns):
                        return
                else:
                    console.print(as_table(run_sql(connection, text)))
            except TeachDetrError as error:
                console.print(f"error: {error}", style="red", markup=False, highlight=False)


def _columns(connection: "DuckDBPyConnection") -> dict[str, list[str]]:
    rows = run_sql(
        connection,
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'main' AND table_name NOT LIKE '\\_%' ESCAPE '\\' "
        "ORDER BY table_name, ordinal_position",
    )
    found: dict[str, list[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["table_name"], []).append(row["column_name"])
    return found


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
    text: str, connection: "DuckDBPyConnection", console: Console, columns: dict[str, list[str]]
) -> bool:
    """Carry out a dot command; False ends the prompt."""
    word, _, rest = text.partition(" ")
    if word in (".quit", ".exit", ".q"):
        return False
    if word == ".tables":
        for name, names in columns.items():
            console.print(f"{name}({', '.join(names)})", markup=False, highlight=False)
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


class _line_editing:
    """Completion and a history file for `input`, where Python has readline."""

    def __init__(self, words: Iterable[str], history: Path) -> None:
        self._words = words
        self._history = history

    def __enter__(self) -> None:
        try:
            import readline
        except ImportError:
            return
        readline.set_completer(Completer(self._words))
        readline.set_completer_delims(" \t\n,;()=<>.")
        readline.parse_and_bind("tab: complete")
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
