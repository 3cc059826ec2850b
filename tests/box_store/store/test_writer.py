import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from box_store.boxes import Boxes
from box_store.errors import StoreError, UnknownTeacher
from box_store.places import files
from box_store.store.parts import part_path
from box_store.store.reader import boxes_of, read_boxes, read_images

quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def visible(store: Any) -> list[str]:
    """Files of units, temporary ones and locks included."""
    return sorted(
        str(path.relative_to(store.path))
        for kind in ("boxes", "images")
        for path in (store.path / kind).rglob("*")
        if path.is_file() and path.name != ".lock"
    )


@quick
@given(data=st.data())
def test_boxes_come_back_rounded_clipped_and_best_first(
    new_maker: Callable[[], Any], data: st.DataObject
) -> None:
    maker = new_maker()
    n = data.draw(st.integers(0, 12))
    coordinate = st.floats(-30, 700, width=32)
    given_boxes = Boxes(
        np.array(data.draw(st.lists(st.tuples(*[coordinate] * 4), min_size=n, max_size=n))),
        np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n))),
        np.array(
            data.draw(st.lists(st.sampled_from(maker.categories.ids), min_size=n, max_size=n))
        ),
        640,
        480,
    )
    store, record, image = maker.store(), maker.record(n_images=1), maker.images(1)[0]
    maker.fill(store, record, {image.id: maker.row(image, given_boxes)})
    found = boxes_of(store, "one", image.id)
    assert found is not None
    # what rounding to 1/16 px leaves without area is gone, everything else is there
    expected = given_boxes.clipped().sorted()
    rounded = np.round(expected.boxes_xyxy * 16) / 16
    kept = (rounded[:, 2:] > rounded[:, :2]).all(axis=1)
    assert np.array_equal(found.boxes_xyxy, rounded[kept])
    assert np.array_equal(found.class_ids, expected.class_ids[kept])
    assert np.abs(found.scores - expected.scores[kept]).max(initial=0) <= 1 / 8192
    assert (np.diff(found.scores) <= 0).all()
    assert found.clipped() == found


def test_statuses_errors_and_counts_come_back(maker: Any) -> None:
    store, record = maker.store(), maker.record(n_images=3, unit_size=3)
    ok, empty, bad = maker.images(3)
    maker.fill(
        store,
        record,
        {
            empty.id: maker.row(empty, Boxes.empty(640, 480)),
            bad.id: maker.row(bad, status="unreadable", error="Straße: bad JPEG", seconds=0.5),
        },
    )
    rows = {row["image_id"]: row for row in read_images(store, "one").to_pylist()}
    assert rows[ok.id]["n_boxes"] == 5
    assert rows[empty.id]["n_boxes"] == 0
    assert (rows[bad.id]["status"], rows[bad.id]["error"]) == ("unreadable", "Straße: bad JPEG")
    assert rows[bad.id]["seconds"] == 0.5
    # three different things: something, nothing, not seen
    assert len(boxes_of(store, "one", ok.id)) == 5
    assert len(boxes_of(store, "one", empty.id)) == 0
    assert boxes_of(store, "one", bad.id) is None


def test_rows_are_sorted_by_image_then_rank(maker: Any) -> None:
    store, record = maker.store(), maker.record(n_images=4, unit_size=4)
    store.register(record)
    store.write_unit("one", 0, [maker.row(image) for image in reversed(maker.images(4))])
    table = read_boxes(store, "one")
    keys = list(zip(table["image_id"].to_pylist(), table["rank"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert keys[:5] == [(7, rank) for rank in range(5)]


def test_files_are_encoded_and_labelled_as_documented(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record)
    path = part_path(store.path, "boxes", "one", 1)
    metadata = pq.read_metadata(path)
    columns = {
        column.path_in_schema: column
        for column in (metadata.row_group(0).column(i) for i in range(metadata.num_columns))
    }
    for name in ("score", "x1", "y1", "x2", "y2"):
        assert columns[name].compression == "ZSTD"
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings
        assert not columns[name].has_dictionary_page
    assert "DELTA_BINARY_PACKED" in columns["image_id"].encodings
    assert columns["category_id"].has_dictionary_page
    # one key of ours, beside the one that pyarrow itself keeps its schema under
    assert set(metadata.metadata) == {b"teach_detr", b"ARROW:schema"}
    footer = json.loads(metadata.metadata[b"teach_detr"])
    assert footer["unit"] == 1
    assert footer["teacher"] == "one"
    assert footer["kind"] == "boxes"
    assert footer["fingerprint"] == record.fingerprint
    assert footer["format_version"] == "2.0"
    for field in pq.read_schema(path):
        assert len(field.metadata[b"doc"]) > 10


def test_a_unit_is_written_exactly_once(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record)
    before = read_boxes(store, "one")
    rows = [maker.row(image, maker.boxes(99)) for image in maker.images(6)[:2]]
    assert store.write_unit("one", 0, rows) is False
    assert read_boxes(store, "one").equals(before)


def test_a_unit_gives_way_only_on_request_and_only_to_a_whole_one(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record)
    before = read_boxes(store, "one")
    rows = [maker.row(image, maker.boxes(99)) for image in maker.images(6)[:2]]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full"):
            store.write_unit("one", 0, rows, replace=True)
    assert read_boxes(store, "one").equals(before)
    assert store.write_unit("one", 0, rows, replace=True)
    assert read_boxes(store, "one").num_rows == before.num_rows
    assert not read_boxes(store, "one").equals(before)


def test_leftovers_of_a_killed_writer_are_overwritten(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record, units=[1])
    boxes = part_path(store.path, "boxes", "one", 0)
    boxes.write_bytes(b"half a fi")
    boxes.with_name(f".{boxes.name}.1-ab.tmp").write_bytes(b"half")
    assert store.units_done("one") == {1}
    assert read_boxes(store, "one").num_rows == 10
    maker.fill(store, record, units=[0])
    assert store.units_done("one") == {0, 1}
    assert read_boxes(store, "one").num_rows == 20
    assert not [name for name in visible(store) if name.endswith(".tmp")]


def test_a_commit_record_without_its_boxes_is_replaced(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record, units=[0])
    part_path(store.path, "boxes", "one", 0).unlink()
    assert store.units_done("one") == set()
    maker.fill(store, record, units=[0])
    assert read_boxes(store, "one").num_rows == 10


def test_an_older_record_never_vouches_for_newer_boxes(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record)
    move = files.move_into_place

    def dies_between(temporary: Path, target: Path) -> None:
        if "images" in target.parts:
            raise KeyboardInterrupt
        move(temporary, target)

    monkeypatch.setattr(files, "move_into_place", dies_between)
    rows = [maker.row(image, maker.boxes(99)) for image in maker.images(6)[:2]]
    with pytest.raises(KeyboardInterrupt):
        store.write_unit("one", 0, rows, replace=True)
    assert store.units_done("one") == {1, 2}


@pytest.mark.parametrize("failing_file", [1, 2])
def test_a_full_disk_leaves_what_was_there(
    maker: Any, monkeypatch: pytest.MonkeyPatch, failing_file: int
) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record, units=[0])
    before = visible(store)
    calls = {"n": 0}

    def full(handle: int) -> None:
        calls["n"] += 1
        if calls["n"] >= failing_file:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    rows = [maker.row(image) for image in maker.images(6)[2:4]]
    with pytest.raises(StoreError) as caught:
        store.write_unit("one", 1, rows)
    text = str(caught.value)
    assert "the disk is full" in text
    assert "unit 1 of teacher one is not stored" in text
    assert "The 1 units committed before are intact" in text
    assert "run the same command again" in text
    assert visible(store) == before
    monkeypatch.undo()
    assert store.write_unit("one", 1, rows)


def test_a_folder_that_cannot_be_written_is_said_so(
    maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = maker.store(), maker.record()
    store.register(record)

    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "make_folder", refused)
    with pytest.raises(StoreError, match=r"cannot be written.*Permission denied"):
        store.write_unit("one", 0, [maker.row(image) for image in maker.images(6)[:2]])


def test_only_the_images_of_the_unit_are_taken(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    store.register(record)
    one = maker.images(1)[0]
    with pytest.raises(StoreError, match="has 2 images, got 1 rows"):
        store.write_unit("one", 0, [maker.row(one)])
    with pytest.raises(StoreError, match="image 7 occurs twice"):
        store.write_unit("one", 0, [maker.row(one), maker.row(one)])
    with pytest.raises(StoreError, match="no unit 9"):
        store.write_unit("one", 9, [])
    with pytest.raises(UnknownTeacher):
        store.write_unit("two", 0, [])


def test_unknown_categories_are_refused_by_number(maker: Any) -> None:
    store, record = maker.store(), maker.record(n_images=1)
    store.register(record)
    boxes = Boxes([[0, 0, 9, 9]], [0.5], [3], 640, 480)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"unknown category ids \[3\]; the table has 4 ids"):
        store.write_unit("one", 0, [maker.row(maker.images(1)[0], boxes)])
    assert visible(store) == []


def test_more_boxes_than_a_rank_can_count_are_refused(maker: Any) -> None:
    store, record = maker.store(), maker.record(n_images=1)
    store.register(record)
    n = 2**15
    boxes = Boxes(np.tile([0, 0, 9, 9], (n, 1)), np.full(n, 0.5), np.ones(n, int), 640, 480)
    with pytest.raises(StoreError, match="set top_k"):
        store.write_unit("one", 0, [maker.row(maker.images(1)[0], boxes)])


def test_commits_reach_the_disk_in_order(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, record = maker.store(), maker.record()
    store.register(record)
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(handle: int) -> None:
        events.append("flush")
        fsync(handle)

    def logged_replace(self: Path, target: Path) -> Path:
        events.append(target.parent.parent.name)
        return replace(self, target)

    maker.fill(store, record, units=[2])
    monkeypatch.setattr(files.os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    maker.fill(store, record, units=[0])
    assert events == ["flush", "flush", "boxes", "flush", "images", "flush"]


def test_names_in_other_bytes_are_stored_as_escapes(maker: Any) -> None:
    from dataclasses import replace

    store = maker.store()
    record = store.register(maker.record())
    rows = [maker.row(image) for image in maker.images(6)[: record.unit_size]]
    name = b"\xff.jpg".decode("utf-8", "surrogateescape")
    rows[0] = replace(rows[0], file_name=name)
    assert store.write_unit(record.name, 0, rows)
    assert read_images(store, record.name)["file_name"].to_pylist()[0] == "\\udcff.jpg"
