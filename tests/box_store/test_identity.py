"""Boxes and annotations that mean other images by the same ids are refused wherever they meet."""

import json
from pathlib import Path
from typing import Any

import pytest

from box_store import BoxStore, DatasetInfo, Selection, SelectionSpec, import_results, load_coco
from box_store import select as select_boxes
from box_store.calibration.fitting import calibrate
from box_store.errors import DataError
from box_store.identity import seen_by
from box_store.places.image_files import same_name
from box_store.query import open_store, select_sql
from box_store.selection.images import check_selection

IDS = (1, 2, 3, 4)
OTHERS = (
    r"image 1 is val_1.png \(64 x 48\) there and train_1.png \(64 x 48\) here; image 2 is .*; "
    r"image 3 is .* \(4 images in all\).*another split"
)


def annotations(path: Path, names: str, size: tuple[int, int] = (64, 48)) -> Path:
    """Four images counted from 1, as exporters count every split."""
    images = [
        {"id": i, "file_name": names.format(i), "width": size[0], "height": size[1]} for i in IDS
    ]
    rows: list[dict[str, Any]] = [
        {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "bbox": [5, 5, 20, 20],
            "area": 400,
            "iscrowd": 0,
        }
        for i in IDS
    ]
    document = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": rows}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> BoxStore:
    """Boxes of the validation split."""
    coco = load_coco(annotations(tmp_path / "val.json", "val_{}.png"))
    results = [
        {"image_id": i, "category_id": 1, "bbox": [40, 25, 20, 20], "score": 0.9} for i in IDS
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    store = BoxStore.create(tmp_path / "store", coco.categories, DatasetInfo("val", coco.sha256, 4))
    import_results(store, "lab", [tmp_path / "results.json"], images=coco.images)
    return store


@pytest.fixture(name="train")
def _train(tmp_path: Path) -> Path:
    return annotations(tmp_path / "train.json", "train_{}.png")


def test_the_right_split_is_accepted(store: BoxStore, tmp_path: Path) -> None:
    seen_by(store, load_coco(tmp_path / "val.json"))


def test_another_split_is_refused_with_three_of_its_images(store: BoxStore, train: Path) -> None:
    with pytest.raises(DataError, match=OTHERS):
        seen_by(store, load_coco(train))


def test_sql_does_not_join_another_splits_annotations(store: BoxStore, train: Path) -> None:
    with pytest.raises(DataError, match=OTHERS):
        open_store(store.path, train)


def test_no_calibration_by_another_splits_objects(store: BoxStore, train: Path) -> None:
    with pytest.raises(DataError, match=OTHERS):
        calibrate(store, "lab", load_coco(train))


def test_selections_know_their_images(store: BoxStore, train: Path, tmp_path: Path) -> None:
    chosen = Selection.open(select_boxes(store, SelectionSpec(), tmp_path / "cache"))
    check_selection(chosen, load_coco(tmp_path / "val.json"))
    by_sql = select_sql(store.path, "SELECT * FROM boxes", tmp_path / "some.arrow")
    for selection in (chosen, Selection.open(by_sql)):
        with pytest.raises(DataError, match=OTHERS):
            check_selection(selection, load_coco(train))


def test_resized_copies_and_turned_frames_are_told(store: BoxStore, tmp_path: Path) -> None:
    small = annotations(tmp_path / "small.json", "val_{}.png", (32, 24))
    with pytest.raises(DataError, match=r"val_1.png \(32 x 24\) here.*resized copies"):
        seen_by(store, load_coco(small))
    turned = annotations(tmp_path / "turned.json", "val_{}.png", (48, 64))
    with pytest.raises(DataError, match="EXIF orientation"):
        seen_by(store, load_coco(turned))


def test_splits_whose_ids_differ_share_a_store(store: BoxStore, tmp_path: Path) -> None:
    document = json.loads((tmp_path / "val.json").read_text())
    for image in document["images"]:
        image["id"] += 100
        image["file_name"] = f"train_{image['id']}.png"
    document["annotations"] = []
    (tmp_path / "other.json").write_text(json.dumps(document))
    seen_by(store, load_coco(tmp_path / "other.json", labelled=False))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a.jpg", "a.jpg", True),
        ("train2017/a.jpg", "a.jpg", True),
        ("train\\a.jpg", "images/train/a.jpg", True),
        ("train/a.jpg", "val/a.jpg", False),
        ("a.jpg", "aa.jpg", False),
        ("", "a.jpg", True),
    ],
)
def test_paths_of_one_file_may_begin_in_other_folders(one: str, other: str, same: bool) -> None:
    assert same_name(one, other) is same
    assert same_name(other, one) is same
