"""The prompt's parts: statements over several lines, completion, cells."""

import pyarrow as pa

from teach_detr.sql_shell import Completer, _statements, as_table


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


def test_completion_offers_views_columns_and_words() -> None:
    complete = Completer(["boxes", "category_id"])
    assert complete("bo", 0) == "boxes"
    assert complete("bo", 1) is None
    assert complete("sel", 0) == "SELECT"


def test_a_long_result_says_how_much_is_left_out() -> None:
    table = as_table(pa.table({"n": list(range(250))}), limit=200)
    assert table.row_count == 200
    assert "50 more rows" in str(table.caption)
