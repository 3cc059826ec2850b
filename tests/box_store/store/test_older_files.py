"""Files of earlier versions lack the optional columns, and are read beside those that have them."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store import format as store_format
from box_store.check import check_store
from box_store.errors import FormatError
from box_store.query import open_store, run_sql
from box_store.selection.selecting import Selection, SelectionSpec, select
from box_store.store import schema
from box_store.store.parts import part_path
from box_store.store.reader import read_boxes, read_images
from box_store.store.store import BoxStore

N_UNITS = 3


@pytest.fixture(scope="module")
def whole(module_maker: Any) -> BoxStore:
    store = module_maker.store()
    for name in ("one", "two"):
        module_maker.fill(store, module_maker.record(name, n_images=6))
    return store


def as_before(store: BoxStore, teacher: str, unit: int) -> None:
    """One unit as a version wrote it that had none of the optional columns."""
    for kind in ("boxes", "images"):
        path = Path(str(part_path(store.path, kind, teacher, unit)))
        table = pq.ParquetFile(path).read()
        footer = json.loads(table.schema.metadata[b"teach_detr"]) | {"format_version": "1.0"}
        if kind == "images":
            boxes = Path(str(part_path(store.path, "boxes", teacher, unit)))
            footer["boxes_sha256"] = hashlib.sha256(boxes.read_bytes()).hexdigest()
        kept = table.drop([name for name in schema.OPTIONAL if name in table.column_names])
        pq.write_table(
            kept.replace_schema_metadata({b"teach_detr": json.dumps(footer).encode()}), path
        )


def without_optional(table: pa.Table) -> pa.Table:
    return table.drop([name for name in schema.OPTIONAL if name in table.column_names])


@given(
    older=st.sets(st.tuples(st.sampled_from(["one", "two"]), st.integers(0, N_UNITS - 1))),
    columns=st.lists(st.sampled_from(schema.BOXES.names), unique=True, min_size=1),
)
@settings(max_examples=15, deadline=None)
def test_any_mix_of_older_and_newer_files_is_one_store(
    whole: BoxStore, older: set[tuple[str, int]], columns: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mixed = BoxStore.open(shutil.copytree(str(whole.path), Path(folder) / "store"))
        for teacher, unit in sorted(older):
            as_before(mixed, teacher, unit)
        for teacher in ("one", "two"):
            for read in (read_boxes, read_images):
                now, then = read(mixed, teacher), read(whole, teacher)
                assert now.schema == then.schema
                assert without_optional(now).equals(without_optional(then))
            some = read_boxes(mixed, teacher, columns)
            assert sorted(some.column_names) == sorted(columns)
            assert some.num_rows == read_boxes(whole, teacher).num_rows
        chosen, expected = (
            Selection.open(select(store, SelectionSpec(), Path(folder) / str(at)))
            for at, store in enumerate((mixed, whole))
        )
        assert chosen.counts() == expected.counts()
        counted = "SELECT teacher, count(*), sum(score) FROM boxes GROUP BY ALL ORDER BY ALL"
        rows = []
        for store in (mixed, whole):
            connection = open_store(store.path, threads=1)
            rows.append(run_sql(connection, counted).to_pylist())
            connection.close()
        assert rows[0] == rows[1]
        assert check_store(mixed.path).problems == []


def test_a_newer_program_asks_for_the_same_selection(
    whole: BoxStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a run that is resumed after an update finds the boxes that it began with."""
    before = select(whole, SelectionSpec(), tmp_path)
    newer = f"{store_format.FORMAT_MAJOR}.{store_format.FORMAT_MINOR + 1}"
    for place in (store_format, schema):
        monkeypatch.setattr(place, "FORMAT_VERSION", newer)
    assert select(whole, SelectionSpec(), tmp_path) == before


def test_a_file_that_lacks_another_column_is_refused_by_name(
    whole: BoxStore, tmp_path: Path
) -> None:
    store = BoxStore.open(shutil.copytree(str(whole.path), tmp_path / "store"))
    path = Path(str(part_path(store.path, "images", "one", 0)))
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop(["status"]).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(FormatError, match=r"lacks the columns \['status'\]"):
        read_images(store, "one")
