import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from box_store.categories import Categories, Category
from box_store.errors import (
    FingerprintMismatch,
    FormatError,
    StoreError,
    UnknownTeacher,
    UsageError,
)
from box_store.store.records import DatasetInfo
from box_store.store.store import BoxStore

DATASET = DatasetInfo("toy", "0" * 64, 6)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_store_opens_as_it_was_made(maker: Any) -> None:
    made = maker.store()
    opened = BoxStore.open(made.path)
    assert opened == made
    assert opened.categories == maker.categories
    assert opened.dataset == DATASET
    assert opened.teachers == {}
    assert pickle.loads(pickle.dumps(opened)) == made


def test_a_path_does_not_depend_on_the_working_folder(
    maker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = maker.store()
    monkeypatch.chdir(maker.folder)
    assert BoxStore.open(Path("store")).path == made.path


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3:///?region=x", "names no bucket"),
        ("s3://key:secret@bucket/store", "leave them out"),
        ("s3://bucket/store?colour=red", "colour"),
        ("nosuch://bucket/store", "nosuch"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_rather_than_made_a_folder(
    maker: Any, url: str, match: str
) -> None:
    for path in (Path(url), url):
        with pytest.raises(UsageError, match=match):
            BoxStore.open_or_create(path, maker.categories, DATASET)  # type: ignore[arg-type]


def test_a_file_url_is_a_local_path(maker: Any) -> None:
    made = BoxStore.open_or_create(Path(f"file://{maker.folder}/store"), maker.categories, DATASET)
    assert made.path == maker.folder / "store"


def test_store_json_states_version_and_frame(maker: Any) -> None:
    document = json.loads((maker.store().path / "store.json").read_text())
    assert document["format_version"] == "2.0"
    assert "pixels of the original image" in document["box_frame"]
    assert document["dataset"]["n_images"] == 6


def test_a_store_is_not_made_over_another(maker: Any) -> None:
    store = maker.store()
    with pytest.raises(StoreError, match="already"):
        BoxStore.create(store.path, maker.categories, DATASET)


def test_a_store_is_not_made_over_a_file(maker: Any) -> None:
    (maker.folder / "file").touch()
    with pytest.raises(StoreError, match="it is a file"):
        BoxStore.create(maker.folder / "file", maker.categories, DATASET)


@pytest.mark.parametrize(("make", "what"), [(True, "no store.json"), (False, "no such folder")])
def test_no_store_is_said_plainly(tmp_path: Path, make: bool, what: str) -> None:
    if make:
        (tmp_path / "x").mkdir()
    with pytest.raises(StoreError, match=what):
        BoxStore.open(tmp_path / "x")


def test_another_category_table_is_refused_with_the_first_difference(maker: Any) -> None:
    store = maker.store()
    other = Categories((Category(1, "person"), Category(2, "car")))
    with pytest.raises(StoreError, match="2: 'bicycle' in the store, 'car' in the data set"):
        BoxStore.open_or_create(store.path, other, DATASET)


def test_another_split_of_the_same_data_set_is_welcome(maker: Any) -> None:
    store = maker.store()
    again = BoxStore.open_or_create(store.path, maker.categories, replace(DATASET, name="val"))
    assert again.dataset.name == "toy"


def test_a_newer_store_is_refused_with_the_remedy(maker: Any) -> None:
    store = maker.store()
    edit(store.path / "store.json", format_version="3.0")
    with pytest.raises(FormatError, match=r"3\.0.*install a newer teach-detr"):
        BoxStore.open(store.path)


def test_a_newer_minor_version_is_read(maker: Any) -> None:
    store = maker.store()
    edit(store.path / "store.json", format_version="1.7", extra="unknown")
    assert BoxStore.open(store.path).dataset == DATASET


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": "1.0"}', "{}"])
def test_a_damaged_store_json_is_named(maker: Any, text: str) -> None:
    store = maker.store()
    (store.path / "store.json").write_text(text)
    with pytest.raises(FormatError, match=r"store\.json is damaged|no readable format version"):
        BoxStore.open(store.path)


def test_a_teacher_is_registered_once(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    assert store.register(record) == record
    assert store.register(replace(record, versions={"onnxruntime": "9"})) == record
    assert store.teachers == {"one": record}
    assert list((store.path / "teachers").iterdir()) == [store.path / "teachers" / "one.json"]


def test_another_configuration_is_refused_and_the_difference_named(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    store.register(record)
    other = maker.record(options={"score_floor": 0.3, "top_k": 100}, weights_sha256="b" * 64)
    with pytest.raises(FingerprintMismatch) as caught:
        store.register(other)
    text = str(caught.value)
    assert record.fingerprint[:12] in text
    assert other.fingerprint[:12] in text
    assert "options.score_floor: 0.05 in the store, 0.3 asked for" in text
    assert "weights_sha256" in text
    assert store.record("one") == record


def test_another_image_list_is_another_configuration(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record())
    with pytest.raises(FingerprintMismatch, match="image_ids_sha256"):
        store.register(maker.record(n_images=5))


def test_names_that_differ_in_case_only_are_refused(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record("one"))
    with pytest.raises(StoreError, match="differ in case only"):
        store.register(maker.record("One"))


def test_an_unknown_teacher_suggests_the_nearest(maker: Any) -> None:
    store = maker.store()
    with pytest.raises(UnknownTeacher, match="it has none yet"):
        store.record("one")
    store.register(maker.record("yolox"))
    with pytest.raises(UnknownTeacher, match=r"it has yolox\. Did you mean 'yolox'"):
        store.units_done("yolo")


def test_a_record_edited_by_hand_is_refused(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record())
    edit(store.path / "teachers" / "one.json", licence="MIT")
    with pytest.raises(FormatError, match="changed by hand"):
        store.record("one")


def test_a_lost_record_is_restored_by_the_same_configuration_only(maker: Any) -> None:
    store, record = maker.store(), maker.record()
    maker.fill(store, record)
    (store.path / "teachers" / "one.json").unlink()
    with pytest.raises(FingerprintMismatch, match="whose record is gone"):
        store.register(maker.record(licence="MIT"))
    store.register(record)
    assert store.units_done("one") == {0, 1, 2}


def test_a_data_set_without_images_has_no_units(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record(n_images=0))
    assert store.units_done("one") == set()
