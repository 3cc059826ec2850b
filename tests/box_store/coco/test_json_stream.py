import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from box_store.coco import json_stream
from box_store.coco.json_stream import iter_array, write_array
from box_store.errors import DataError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(json_values, max_size=8), st.sampled_from([None, 1]), st.sampled_from([1, 2, 7, 999])
)
def test_any_array_is_read_as_json_reads_it(
    tmp_path: Path, document: list[Any], indent: int | None, chunk: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text(f" {json.dumps(document, indent=indent)}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        # windows far smaller than an entry
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert list(iter_array(path, "list")) == document


def test_entries_are_yielded_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2, oops")
    entries = iter_array(path, "list")
    assert [next(entries), next(entries)] == [1, 2]
    with pytest.raises(DataError, match="behind entry 2"):
        next(entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("  \n", "an empty file"),
        ('{"images": []}', "looks like an annotation file"),
        ("nonsense", "begins with 'n'"),
        ("[", "cut off"),
        ('[{"a": 1}', "cut off"),
        ('[{"a": 1},', "cut off"),
        ('[{"a": 1}, {"b"', "cut off"),
        ("[1 2]", "expected ',' or '\\]', got '2'"),
        ("[1,]", "behind entry 1: expected a whole entry"),
        ("[1] [2]", "expected the end of the file, got '\\['"),
    ],
)
def test_what_is_no_array_is_refused_with_the_place(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(iter_array(path, "results file"))


def test_an_endless_entry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 100)
    monkeypatch.setattr(json_stream, "_LONGEST_ENTRY", 1000)
    path = tmp_path / "a.json"
    path.write_text('["' + "x" * 5000 + '"]')
    with pytest.raises(DataError, match="up to 1000 characters"):
        list(iter_array(path, "list"))


def test_no_file_and_no_text_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results file at"):
        list(iter_array(tmp_path / "no.json", "results file"))
    (tmp_path / "a.json").write_bytes(b"[\xff\xfe]")
    with pytest.raises(DataError, match="not UTF-8"):
        list(iter_array(tmp_path / "a.json", "results file"))
    with pytest.raises(DataError, match="cannot read"):
        list(iter_array(tmp_path, "results file"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 1 << 14)
    entry = {"image_id": 1, "category_id": 2, "bbox": [1.5, 2.5, 3.5, 4.5], "score": 0.5}
    line = json.dumps(entry) + ",\n"
    path = tmp_path / "big.json"
    with path.open("w") as file:
        file.write("[")
        for _ in range(40):
            file.write(line * 1000)
        file.write(json.dumps(entry) + "]")
    assert path.stat().st_size > 3_000_000
    tracemalloc.start()
    count = sum(1 for _ in iter_array(path, "list"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_001
    assert peak < 500_000


@pytest.mark.parametrize("entries", [[], [1], [{"a": "\u2028"}, [1, 2.5], None]])
def test_what_is_written_is_read_back_entry_by_entry(tmp_path: Path, entries: list) -> None:
    path = tmp_path / "array.json"
    with path.open("wb") as file:
        assert write_array(file, iter(entries)) == len(entries)
    assert list(iter_array(path, "file")) == entries
    assert path.read_bytes().count(b"\n") == len(entries) + 1
