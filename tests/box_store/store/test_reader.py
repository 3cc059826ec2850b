from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from box_store.errors import FormatError
from box_store.store.parts import part_path, read_footer
from box_store.store.reader import boxes_of, iter_units, known_images, read_boxes, read_images
from box_store.store.schema import BOXES, IMAGES, Footer


def filled(maker: Any) -> Any:
    store = maker.store()
    maker.fill(store, maker.record())
    return store


def test_units_come_one_by_one_and_whole_tables_in_their_order(maker: Any) -> None:
    store = filled(maker)
    units = list(iter_units(store, "one"))
    assert [unit.number for unit in units] == [0, 1, 2]
    boxes = read_boxes(store, "one").drop(["split"])
    assert pa.concat_tables([unit.boxes for unit in units]).equals(boxes)
    assert read_images(store, "one")["image_id"].to_pylist() == [7, 17, 27, 37, 47, 57]


def test_columns_can_be_chosen(maker: Any) -> None:
    store = filled(maker)
    assert read_boxes(store, "one", ["score", "image_id"]).column_names == ["score", "image_id"]


def test_a_teacher_without_units_has_empty_tables_with_the_right_columns(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record())
    assert read_boxes(store, "one").schema.names == BOXES.names
    assert read_images(store, "one", ["image_id"]).schema.names == ["image_id"]
    assert IMAGES.names[0] == "image_id"
    assert boxes_of(store, "one", 7) is None


def test_only_units_with_both_files_are_seen(maker: Any) -> None:
    store = filled(maker)
    part_path(store.path, "images", "one", 1).unlink()
    part_path(store.path, "boxes", "one", 2).unlink()
    assert [unit.number for unit in iter_units(store, "one")] == [0]
    assert boxes_of(store, "one", 27) is None


def test_the_images_of_all_teachers_are_known_by_size(maker: Any) -> None:
    store = filled(maker)
    image = maker.images(7)[6]
    failed = maker.row(maker.images(1)[0], status="unreadable")
    maker.fill(store, maker.record("two", n_images=1), {7: failed})
    maker.fill(store, maker.record("three", n_images=7, unit_size=7))
    assert [found.id for found in known_images(store)] == [7, 17, 27, 37, 47, 57, 67]
    assert known_images(store)[-1] == image


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not a table")


@pytest.mark.parametrize("damage", [truncate, empty, text])
@pytest.mark.parametrize("kind", ["boxes", "images"])
def test_a_damaged_file_is_named_with_the_remedy(maker: Any, damage: Any, kind: str) -> None:
    store = filled(maker)
    path = part_path(store.path, kind, "one", 1)
    damage(path)
    read = read_boxes if kind == "boxes" else read_images
    with pytest.raises(FormatError) as caught:
        read(store, "one")
    assert str(path) in str(caught.value)
    assert "delete it and run the same teacher again" in str(caught.value)


def test_a_damaged_page_is_named_too(maker: Any) -> None:
    store = filled(maker)
    path = part_path(store.path, "boxes", "one", 0)
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="part-00000"):
        read_boxes(store, "one")


def rewrite(path: Path, footer: Footer | None) -> None:
    table = pq.ParquetFile(path).read()
    metadata = {} if footer is None else footer.to_metadata()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_file_of_another_program_is_refused(maker: Any) -> None:
    store = filled(maker)
    path = part_path(store.path, "boxes", "one", 0)
    rewrite(path, None)
    with pytest.raises(FormatError, match="was not written by this program"):
        read_footer(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": "3.0"}, "install a newer teach-detr"),
        ({"kind": "images"}, "holds images of teacher one, expected boxes"),
        ({"teacher": "two"}, "holds boxes of teacher two"),
        ({"fingerprint": "f" * 64}, "another configuration"),
    ],
)
def test_a_file_in_the_wrong_place_is_refused(
    maker: Any, changes: dict[str, Any], message: str
) -> None:
    store = filled(maker)
    path = part_path(store.path, "boxes", "one", 0)
    values = {"kind": "boxes", "teacher": "one", "fingerprint": maker.record().fingerprint}
    rewrite(path, Footer(**(values | {"unit": 0} | changes)))
    with pytest.raises(FormatError, match=message):
        read_boxes(store, "one")


def test_a_file_without_a_column_is_refused(maker: Any) -> None:
    store = filled(maker)
    path = part_path(store.path, "boxes", "one", 0)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop_columns(["score"]), path)
    with pytest.raises(FormatError, match=r"lacks the columns \['score'\]"):
        read_boxes(store, "one")
