"""The documented example queries: `.sql` files in `box_store/sql`, each of which runs as it stands.

A file begins with comments: the title, a description, and the parameters that it binds, each as
`-- $name = value   what it is`, the value in JSON. Any SQL text may declare parameters so.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from box_store.errors import UsageError, nearest

_PARAMETER = re.compile(r"--\s*\$(\w+)\s*=\s*(\"[^\"]*\"|\S+)(?:\s+(.*))?")


@dataclass(frozen=True)
class ExampleQuery:
    """A documented query. `parameters` are its defaults, `meanings` what they are."""

    name: str
    title: str
    description: str
    sql: str
    parameters: Mapping[str, Any]
    meanings: Mapping[str, str]

    @property
    def needs_truth(self) -> bool:
        """Whether it needs ground truth (`open_store(annotations=...)`)."""
        return asks_truth(self.sql)


def parse_query(name: str, text: str) -> ExampleQuery:
    """A query from the text of a `.sql` file. Raises UsageError for a default that is no JSON."""
    prose: list[str] = []
    parameters: dict[str, Any] = {}
    meanings: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        declared = _PARAMETER.match(line)
        if declared is None:
            prose.append(line.removeprefix("--").strip())
            continue
        try:
            parameters[declared[1]] = json.loads(declared[2])
        except ValueError as error:
            raise UsageError(
                f"{name}: the default of ${declared[1]} must be JSON (a number, null, or text in "
                f"double quotes), got {declared[2]!r}"
            ) from error
        meanings[declared[1]] = declared[3] or ""
    return ExampleQuery(
        name, prose[0] if prose else name, " ".join(prose[1:]), text, parameters, meanings
    )


@cache
def example_queries() -> dict[str, ExampleQuery]:
    """Every documented query by name."""
    folder = resources.files("box_store") / "sql"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {
        name.removesuffix(".sql"): parse_query(
            name.removesuffix(".sql"), (folder / name).read_text(encoding="utf-8")
        )
        for name in names
    }


def example_query(name: str) -> ExampleQuery:
    """One documented query. Raises UsageError, suggesting the nearest name."""
    queries = example_queries()
    if name not in queries:
        raise UsageError(
            f"no example query is called {name!r}; there are {', '.join(queries)}."
            f"{nearest(name, queries)}"
        )
    return queries[name]


def setup_sql(name: str) -> str:
    """A file of `box_store/sql/setup`."""
    return (resources.files("box_store") / "sql" / "setup" / name).read_text(encoding="utf-8")


def asks_truth(sql: str) -> bool:
    """Whether a query asks what is there with annotations only."""
    return bool(re.search(r"\b(truth|matched|on_objects)\b|\bjudged\(", without_comments(sql)))


def without_comments(sql: str) -> str:
    """The SQL without its `--` comments (a `--` inside a quoted text would be cut too)."""
    return re.sub(r"--[^\n]*", "", sql)
