from typing import Any

import pytest

from box_store.boxes import Boxes
from box_store.errors import FormatError, StoreError, UsageError
from box_store.store.records import (
    ImageRow,
    TeacherRecord,
    check_teacher_name,
    image_ids_sha256,
    split_units,
)


@pytest.mark.parametrize("name", ["yolox_nano", "a", "RetinaNet-Swin.S_nms.3", "0"])
def test_ordinary_names_are_fine(name: str) -> None:
    assert check_teacher_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "-a", "a b", "a=b", "ü", "x" * 81, "a.", "fused", "None", "a\n"],
)
def test_names_that_no_file_or_shell_takes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a teacher"):
        check_teacher_name(name)


def test_versions_are_the_only_field_outside_the_fingerprint(maker: Any) -> None:
    record = maker.record()
    assert record.fingerprint == maker.record(versions={"onnxruntime": "2.0"}).fingerprint
    for change in (
        {"adapter": "mmdet"},
        {"model": "m"},
        {"weights_sha256": "b" * 64},
        {"licence": "MIT"},
        {"class_map": {"person": 2}},
        {"options": {"score_floor": 0.1, "top_k": 100}},
        {"unit_size": 3},
        {"n_images": 5},
        {"name": "two"},
    ):
        assert maker.record(**change).fingerprint != record.fingerprint, change


def test_the_fingerprint_does_not_depend_on_the_order_of_keys(maker: Any) -> None:
    a = maker.record(options={"a": 1, "b": 2})
    assert a.fingerprint == maker.record(options={"b": 2, "a": 1}).fingerprint


def test_differences_are_named_down_to_the_option(maker: Any) -> None:
    other = maker.record(options={"score_floor": 0.1, "nms_iou": 0.5}, licence="MIT")
    assert maker.record().differing_fields(other) == [
        "licence",
        "options.nms_iou",
        "options.score_floor",
        "options.top_k",
    ]


def test_a_record_survives_json(maker: Any) -> None:
    record = maker.record()
    again = TeacherRecord.from_json(record.to_json(), "here")
    assert again == record
    assert again.fingerprint == record.fingerprint


def test_a_record_that_lacks_fields_is_named(maker: Any) -> None:
    values = maker.record().to_json()
    del values["model"]
    with pytest.raises(FormatError, match=r"one\.json lacks model"):
        TeacherRecord.from_json(values, "one.json")


def test_options_must_be_json(maker: Any) -> None:
    with pytest.raises(UsageError, match="JSON"):
        _ = maker.record(options={"x": object()}).fingerprint


def test_the_plan_must_add_up(maker: Any) -> None:
    values = maker.record().to_json() | {"n_units": 7}
    with pytest.raises(FormatError, match="3 units, not 7"):
        TeacherRecord.from_json(values, "one.json")


def test_units_cover_the_image_list_once(maker: Any) -> None:
    record = maker.record(n_images=5)
    positions = [position for unit in range(3) for position in record.unit_range(unit)]
    assert positions == [0, 1, 2, 3, 4]
    assert split_units(["a", "b", "c"], 2) == [["a", "b"], ["c"]]
    with pytest.raises(StoreError, match="no unit 3"):
        record.unit_range(3)


def test_the_hash_of_an_image_list_knows_its_order() -> None:
    assert image_ids_sha256([1, 2]) != image_ids_sha256([2, 1])
    assert image_ids_sha256([1, 23]) != image_ids_sha256([12, 3])


@pytest.mark.parametrize(
    "values",
    [
        {"boxes": None},
        {"boxes": Boxes.empty(9, 9), "status": "missing"},
        {"boxes": Boxes.empty(9, 9), "status": "Not A Code"},
        {"boxes": Boxes.empty(8, 9)},
    ],
)
def test_a_row_that_contradicts_itself_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="image 3"):
        ImageRow(3, "a.jpg", 9, 9, **values)
