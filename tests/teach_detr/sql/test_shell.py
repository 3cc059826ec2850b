"""The prompt's parts: statements over several lines, completion, cells."""

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from box_store.query import open_store
from teach_detr.sql.completion import DELIMITERS, Completer, macro_parameters, view_columns
from teach_detr.sql.shell import _statements, as_table


def feed(*lines: str):
    rest = iter(lines)

    def read(prompt: str) -> str:
        for line in rest:
            return line
        raise EOFError

    return list(_statements(read))


def test_a_statement_ends_with_a_semicolon_and_may_take_lines() -> None:
    assert feed("SELECT 1", "  + 1;", "SELECT 2;") == ["SELECT 1\n  + 1;", "SELECT 2;"]


def test_a_dot_command_is_one_line_and_an_unfinished_query_is_dropped() -> None:
    assert feed(".tables", "SELECT 1") == [".tables"]


COLUMNS = {"boxes": ["image_id", "score"], "images": ["image_id", "file_name"]}


def offered(line: str) -> list[str]:
    """What Tab offers at the end of a line."""
    word = line
    for delimiter in DELIMITERS:
        word = word.rpartition(delimiter)[2]
    complete = Completer(COLUMNS, ["iou("], ["coverage"], lambda: line)
    found = (complete(word, state) for state in range(100))
    return [text for text in found if text is not None]


def test_completion_offers_views_columns_macros_and_words() -> None:
    assert offered("bo") == ["boxes"]
    assert offered("SELECT im") == ["image_id", "images"]
    assert offered("sel") == ["SELECT"]
    assert offered("SELECT max(io") == ["iou("]


def test_completion_knows_where_it_is() -> None:
    assert offered("SELECT * FROM i") == ["images", "iou("]
    assert offered("SELECT * FROM boxes b JOIN ") == ["boxes", "images", "iou("]
    assert offered("FROM images WHERE images.") == ["file_name", "image_id"]
    assert offered("FROM boxes AS b JOIN images i ON b.") == ["image_id", "score"]
    assert offered("SELECT x.sc") == ["score"]
    assert offered(".ex") == ["example", "examples"]
    assert offered(".example co") == ["coverage"]


def test_views_and_macros_are_those_of_the_store(small_store) -> None:
    connection = open_store(small_store.path, small_store.annotations)
    try:
        assert {"boxes", "runs", "teachers", "truth"} <= set(view_columns(connection))
        assert view_columns(connection)["categories"] == ["category_id", "name"]
        macros = macro_parameters(connection)
        overlaps = {"iou", "overlap_area", "overlap_side"}
        assert set(macros) == overlaps | {"judged", "matched", "on_objects"}
        assert macros["matched"] == ["teacher_name", "min_iou", "min_score"]
    finally:
        connection.close()


@pytest.mark.slow
def test_tab_and_history_at_a_real_terminal(small_store, tmp_path: Path) -> None:
    pytest.importorskip("readline")
    pty = pytest.importorskip("pty")
    first = at_terminal(pty, small_store.path, tmp_path, b"SELECT count(*) + 70 AS n FROM bo\t;\n")
    assert "79" in first
    # the arrow brings back what an earlier prompt was asked
    second = at_terminal(pty, small_store.path, tmp_path, b"\x1b[A\n")
    assert "79" in second


def at_terminal(pty: Any, store: Path, home: Path, keys: bytes) -> str:
    """What the prompt shows when the keys are typed, then Ctrl-D."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"HOME": str(home), "TERM": "xterm", "INPUTRC": os.devnull}
    command = [sys.executable, "-m", "teach_detr.cli", "sql", str(store)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        for wanted, reply in ((b"sql> ", keys), (b"sql> ", b"\x04"), (None, b"")):
            seen = len(shown)
            while wanted is None or wanted not in shown[seen:]:
                assert select.select([ours], [], [], 60)[0], f"silent after {shown!r}"
                try:
                    more = os.read(ours, 4096)
                except OSError:
                    # how Linux says that the other end was closed
                    break
                shown += more
            if wanted is not None:
                os.write(ours, reply)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.decode()


def test_a_long_result_says_how_much_is_left_out() -> None:
    table = as_table(pa.table({"n": list(range(250))}), limit=200)
    assert table.row_count == 200
    assert "50 more rows" in str(table.caption)
