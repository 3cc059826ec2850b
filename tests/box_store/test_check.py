import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from box_store.boxes import Boxes
from box_store.check import check_store
from box_store.errors import DataError, StoreError
from box_store.selection.selecting import SelectionSpec, select
from box_store.store.parts import part_path


@pytest.fixture
def store(maker: Any) -> Any:
    store = maker.store()
    maker.fill(store, maker.record())
    return store


def kinds(path: Path, annotations: Path | None = None) -> list[str]:
    return [problem.kind for problem in check_store(path, annotations).problems]


def change_boxes(store: Any, unit: int = 0, **columns: Any) -> Path:
    """Rewrite cells of a boxes file: column={row: value}."""
    path = part_path(store.path, "boxes", "one", unit)
    table = pq.ParquetFile(path).read()
    for name, cells in columns.items():
        values = table[name].to_pylist()
        for row, value in cells.items():
            values[row] = value
        position = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(position, field, pa.array(values, field.type))
    pq.write_table(table, path)
    return path


def test_a_sound_store_has_no_problems(store: Any, maker: Any) -> None:
    select(store, SelectionSpec())
    report = check_store(store.path, maker.annotations(6))
    assert report.problems == []
    assert report.ok
    assert report.counts["teachers"] == 1
    assert report.counts["units"] == 3
    assert report.counts["images"] == 6
    assert report.counts["boxes"] == 30
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


def test_an_empty_store_is_sound(maker: Any) -> None:
    assert check_store(maker.store().path).ok


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x1": {3: float("nan")}}, "not finite"),
        ({"score": {0: float("inf")}}, "not finite"),
        ({"x1": {3: 630.0}, "x2": {3: 600.0}}, "inverted"),
        ({"y1": {2: 10.0}, "y2": {2: 10.0}}, "without area"),
        ({"x2": {2: 9999.0}}, "outside their image"),
        ({"x1": {2: -1.0}}, "outside their image"),
        ({"score": {0: 1.5}}, "score outside 0..1"),
        ({"category_id": {4: 3}}, "unknown category"),
        ({"rank": {1: 0}}, "out of order or twice"),
        ({"score": {9: 1.0}}, "scoring more than the box ranked before"),
        ({"image_id": {9: 999}}, "of an image its unit does not have"),
    ],
)
def test_bad_rows_are_named(store: Any, columns: Any, message: str) -> None:
    path = change_boxes(store, **columns)
    report = check_store(store.path)
    assert not report.ok
    found = [problem for problem in report.problems if message in problem.message]
    assert len(found) == 1
    row = next(iter(next(iter(columns.values()))))
    assert found[0].where.startswith(f"row {row} (image ")
    assert found[0].file == str(path.relative_to(store.path))
    # whatever was changed, the file is no longer the one that was committed
    assert "changed" in kinds(store.path)


def test_counts_that_do_not_agree_are_named(store: Any) -> None:
    path = part_path(store.path, "boxes", "one", 0)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(0, 9), path)
    (problem,) = [p for p in check_store(store.path).problems if p.kind == "count"]
    assert (problem.where, problem.message) == ("image 17", "5 boxes stated, 4 there")


def test_missing_and_orphaned_units_are_named(store: Any) -> None:
    part_path(store.path, "images", "one", 0).unlink()
    part_path(store.path, "boxes", "one", 1).unlink()
    for kind in ("boxes", "images"):
        part_path(store.path, kind, "one", 2).unlink()
    problems = check_store(store.path).problems
    assert [(p.kind, p.message) for p in problems] == [
        ("orphan", "unit 1 has no boxes file"),
        ("orphan", "unit 0 was never committed"),
        ("missing", "1 of 3 units are not done: 2"),
    ]
    assert all(problem.remedy == "run the same teacher again" for problem in problems)


def test_ranges_of_missing_units_are_short(maker: Any) -> None:
    store = maker.store()
    maker.fill(store, maker.record(n_images=9, unit_size=1), units=[3, 7])
    (problem,) = check_store(store.path).problems
    assert problem.message == "7 of 9 units are not done: 0-2, 4-6, 8"


@pytest.mark.parametrize("kind", ["boxes", "images"])
def test_truncated_files_are_lines_of_the_report(store: Any, kind: str) -> None:
    path = part_path(store.path, kind, "one", 1)
    path.write_bytes(path.read_bytes()[:40])
    found = [p for p in check_store(store.path).problems if p.kind == "damaged"]
    assert [problem.file for problem in found] == [str(path.relative_to(store.path))]


def test_foreign_files_and_folders_are_named(store: Any) -> None:
    (store.path / "boxes" / "teacher=one" / "notes.txt").write_text("hello")
    part_path(store.path, "boxes", "one", 99).write_bytes(b"")
    (store.path / "boxes" / "teacher=ghost").mkdir()
    (store.path / "images" / "stuff").mkdir()
    found = {(p.kind, p.file) for p in check_store(store.path).problems}
    assert ("foreign", "boxes/teacher=one/notes.txt") in found
    assert ("foreign", "boxes/teacher=one/part-00099.parquet") in found
    assert ("orphan", "boxes/teacher=ghost") in found
    assert ("orphan", "images/stuff") in found


def test_leftovers_are_notes_only(store: Any) -> None:
    (store.path / "boxes" / "teacher=one" / ".part-00000.parquet.1-a.tmp").touch()
    (store.path / ".import-abc").mkdir()
    report = check_store(store.path)
    assert [problem.severity for problem in report.problems] == ["note", "note"]
    assert report.ok


def test_an_image_shown_twice_is_named(store: Any) -> None:
    for kind in ("boxes", "images"):
        source, target = (part_path(store.path, kind, "one", unit) for unit in (0, 1))
        target.write_bytes(source.read_bytes())
    problems = check_store(store.path).problems
    assert "unit 0 has this image too" in [problem.message for problem in problems]
    assert "the file says it is unit 0" in [problem.message for problem in problems]


def test_a_damaged_record_is_named(store: Any) -> None:
    (store.path / "teachers" / "one.json").write_text("{")
    assert kinds(store.path) == ["record"]


def test_a_damaged_or_newer_store_is_reported(store: Any) -> None:
    (store.path / "store.json").write_text('{"format_version": "9.0"}')
    (problem,) = check_store(store.path).problems
    assert (problem.kind, problem.file) == ("store", "store.json")
    assert "install a newer" in problem.message


def test_a_damaged_selection_is_named(store: Any) -> None:
    path = select(store, SelectionSpec())
    path.write_bytes(b"short")
    (problem,) = check_store(store.path).problems
    assert (problem.kind, problem.remedy) == ("cache", "delete it")


def test_images_are_compared_with_the_annotations(store: Any, maker: Any) -> None:
    path = maker.annotations(5)
    document = json.loads(path.read_text())
    document["images"][0]["width"] = 480
    document["images"][0]["height"] = 640
    path.write_text(json.dumps(document))
    messages = [problem.message for problem in check_store(store.path, path).problems]
    assert messages == [
        "000000000007.jpg of 640 x 480 here, 000000000007.jpg of 480 x 640 in the annotations",
        "annotations.json does not list this image",
    ]


def test_teachers_that_saw_different_images_are_named(store: Any, maker: Any) -> None:
    image = maker.images(1)[0]
    other = maker.row(type(image)(7, "other.jpg", 640, 480), Boxes.empty(640, 480))
    maker.fill(store, maker.record("two", n_images=1), {7: other})
    (problem,) = check_store(store.path).problems
    assert problem.message == (
        "other.jpg of 640 x 480 here, 000000000007.jpg of 640 x 480 for teacher one"
    )


def test_boxes_of_a_failed_image_are_named(maker: Any) -> None:
    store = maker.store()
    first, second = maker.images(2)
    maker.fill(store, maker.record(n_images=2), {second.id: maker.row(second, status="unreadable")})
    assert check_store(store.path).ok
    change_boxes(store, image_id={4: 17})
    assert any("of an image that failed" in p.message for p in check_store(store.path).problems)
    assert first.id == 7


def test_no_store_and_no_annotations_are_errors_not_reports(store: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no box store"):
        check_store(tmp_path / "none")
    with pytest.raises(DataError, match="no annotation file"):
        check_store(store.path, tmp_path / "none.json")
