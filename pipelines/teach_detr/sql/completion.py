"""What Tab offers at the SQL prompt: words that make sense where the cursor is."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from box_store.query import run_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COMMANDS = ("tables", "examples", "example", "help", "quit")

_KEYWORDS = (
    *("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "USING", "HAVING"),
    *("COUNT", "AVG", "DISTINCT", "AND", "OR", "NOT", "NULL", "DESC", "WITH", "CASE", "WHEN"),
)
_QUALIFIED = re.compile(r"(\w+)\.\Z")
_TABLE_NEXT = re.compile(r"\b(from|join)\s+\Z", re.IGNORECASE)

# characters that end a word: what stands between two of them is completed
DELIMITERS = " \t\n,;()=<>."


class Completer:
    """Completion for readline: call it with the word and 0, 1, ... until it gives None.

    columns: column names by view. macros: names with an opening bracket. before: the line up to the
    cursor, of which the word is the end.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[str]],
        macros: Iterable[str] = (),
        examples: Iterable[str] = (),
        before: Callable[[], str] = lambda: "",
    ) -> None:
        self._columns = columns
        self._tables = [*columns, *macros]
        self._all_columns = {name for names in columns.values() for name in names}
        self._words = {*self._tables, *self._all_columns, *_KEYWORDS}
        self._examples = list(examples)
        self._before = before
        self._found: list[str] = []

    def __call__(self, text: str, state: int) -> str | None:
        if state == 0:
            start = self._before()
            context = start[: len(start) - len(text)]
            lower = text.lower()
            words = self._candidates(context)
            self._found = sorted(word for word in words if word.lower().startswith(lower))
        return self._found[state] if state < len(self._found) else None

    def _candidates(self, context: str) -> Iterable[str]:
        if context.startswith("."):
            return self._examples if context.split() == [".example"] else COMMANDS
        qualified = _QUALIFIED.search(context)
        if qualified is not None:
            return self._columns_of(qualified[1], context)
        return self._tables if _TABLE_NEXT.search(context) else self._words

    def _columns_of(self, name: str, context: str) -> Iterable[str]:
        """Columns of a view, or of the view that the line calls so; of all where it is unknown."""
        if name in self._columns:
            return self._columns[name]
        views = "|".join(map(re.escape, self._columns))
        alias = rf"\b({views})\s+(?:as\s+)?{re.escape(name)}\b"
        found = re.search(alias, context, re.IGNORECASE)
        return self._columns[found[1].lower()] if found and views else self._all_columns


def view_columns(connection: "DuckDBPyConnection") -> dict[str, list[str]]:
    """Names of the views and tables, each with its columns."""
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


def macro_parameters(connection: "DuckDBPyConnection") -> dict[str, list[str]]:
    """Names of the store's macros, each with its parameters."""
    rows = run_sql(
        connection,
        "SELECT function_name, parameters FROM duckdb_functions() "
        "WHERE NOT internal AND function_type IN ('macro', 'table_macro') ORDER BY function_name",
    )
    return {row["function_name"]: row["parameters"] for row in rows.to_pylist()}
