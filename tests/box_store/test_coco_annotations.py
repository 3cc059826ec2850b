from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.coco_annotations import load_coco
from box_store.errors import DataError

IMAGE = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}
PERSON = {"id": 1, "name": "person"}


def document(**changes: Any) -> dict[str, Any]:
    row = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 300}
    return {"images": [IMAGE], "categories": [PERSON], "annotations": [row]} | changes


def with_row(**changes: Any) -> dict[str, Any]:
    row = document()["annotations"][0] | changes
    return document(annotations=[{k: v for k, v in row.items() if v != "absent"}])


def test_a_sound_file_is_read_whole(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", document()))
    found = coco.annotations_of(7)
    assert coco.image_ids == (7,)
    assert coco.by_id[7].file_name == "a.jpg"
    assert found.boxes_xywh.tolist() == [[10, 10, 20, 20]]
    assert found.boxes_xyxy.tolist() == [[10, 10, 30, 30]]
    assert found.areas.tolist() == [300]
    assert not found.iscrowd.any()
    assert coco.problems == {}
    assert coco.n_boxes == 1


def test_an_image_without_annotations_has_an_empty_set(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", document(annotations=[])))
    assert len(coco.annotations_of(7)) == 0
    assert coco.annotations_of(7).boxes_xyxy.shape == (0, 4)


def test_an_empty_data_set_is_no_error(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", document(images=[], annotations=[])))
    assert coco.images == ()


def test_a_file_without_annotations_serves_for_labelling(maker: Any) -> None:
    path = maker.json_file("a.json", {"images": [IMAGE], "categories": [PERSON]})
    assert len(load_coco(path, labelled=False).images) == 1
    with pytest.raises(DataError, match="annotations missing"):
        load_coco(path)


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([10, 10, 0, 5], "no area"),
        ([10, 10, -3, 5], "no area"),
        ([200, 10, 5, 5], "outside its image"),
        ([10, -9, 5, 5], "outside its image"),
        ([10, 10, 5], "not a box"),
        ([10, 10, 5, float("nan")], "not a box"),
        ("10 10 5 5", "not a box"),
    ],
)
def test_boxes_that_are_none_are_dropped_and_counted(maker: Any, bbox: Any, kind: str) -> None:
    coco = load_coco(maker.json_file("a.json", with_row(bbox=bbox)))
    assert coco.n_boxes == 0
    assert coco.problems == {kind: 1}
    assert "annotation 1 (image 7)" in coco.examples[kind][0]


def test_boxes_that_stick_out_are_cut_and_counted(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", with_row(bbox=[-5, 40, 30, 30])))
    assert coco.annotations_of(7).boxes_xywh.tolist() == [[0, 40, 25, 10]]
    assert coco.problems == {"cut to its image": 1}


def test_a_hundredth_beyond_the_border_is_rounding(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", with_row(bbox=[80, 10, 20.01, 10])))
    assert coco.problems == {}
    assert coco.annotations_of(7).boxes_xyxy[0, 2] == 100


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (with_row(image_id=8), "annotation 1 is of image 8, which is not listed"),
        (with_row(category_id=5), "unknown category id 5; the table has 1 ids between 1 and 1"),
        (with_row(bbox="absent"), "annotation 1 lacks bbox"),
        (with_row(id="absent"), "annotation number 0 lacks id"),
        (document(annotations=[document()["annotations"][0]] * 2), "annotation id 1 occurs twice"),
        (document(images=[IMAGE, IMAGE]), "image id 7 occurs twice: a.jpg and a.jpg"),
        (document(images=[IMAGE | {"id": "x"}]), "not a whole number"),
        (document(images=[IMAGE | {"width": 0}]), "at least 1 x 1 pixels, got 0 x 50"),
        (document(images=[IMAGE | {"file_name": ""}]), "no file name"),
        (document(images=[{"id": 7}]), "image 7 lacks file_name and width and height"),
        (document(images=["a.jpg"]), "image 0 is no object"),
        (document(categories=[PERSON, PERSON]), "category id 1 occurs twice"),
        (document(categories="person"), "categories missing"),
        ([], "looks like a results file"),
        ("text", "expected a COCO annotation file"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason(maker: Any, bad: Any, message: str) -> None:
    path = maker.json_file("bad.json", bad)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(path)
    assert "bad.json" in str(caught.value)


def test_a_missing_file_says_whether_its_folder_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder .* exists"):
        load_coco(tmp_path / "no.json")
    with pytest.raises(DataError, match="is missing too"):
        load_coco(tmp_path / "no" / "no.json")


@pytest.mark.parametrize("text", ["", "{", "\x00", '{"images": [}'])
def test_what_is_no_json_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not valid JSON"):
        load_coco(path)


def test_non_ascii_names_come_through(maker: Any) -> None:
    name = "Straße/猫 №1.jpg"
    coco = load_coco(maker.json_file("a.json", document(images=[IMAGE | {"file_name": name}])))
    assert coco.images[0].file_name == name


def test_real_coco_annotations(shared: Path) -> None:
    folder = shared / "data" / "coco-mini" / "annotations"
    coco = load_coco(folder / "instances_train2017.json")
    assert len(coco.images) == 128
    assert len(coco.categories) == 80
    assert coco.categories.ids[-1] == 90
    assert not coco.problems
    for image in coco.images:
        xyxy = coco.annotations_of(image.id).boxes_xyxy
        assert (xyxy[:, [0, 2]] <= image.width).all()
        assert np.isfinite(xyxy).all()
