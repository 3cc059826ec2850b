"""COCO metrics equal pycocotools', also where there is nothing to count."""

import json
from pathlib import Path

import pytest

from box_store.errors import DataError
from student_train.coco_metrics import METRIC_NAMES, coco_metrics


def truth(n_boxes: int = 2) -> dict:
    return {
        "images": [{"id": i, "width": 100, "height": 100} for i in (1, 2, 3)],
        "categories": [{"id": 4, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"image_id": i, "category_id": 4, "bbox": [10, 10, 40, 40]}
            for i in range(1, n_boxes + 1)
        ],
    }


def found(image_id: int, score: float = 0.9, category_id: int = 4, x: float = 10) -> dict:
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x, 10, 40, 40],
        "score": score,
    }


def test_perfect_detections_score_one():
    metrics = coco_metrics(truth(), [found(1), found(2)])
    assert pytest.approx(1) == metrics.AP
    assert metrics.values["APm"] == pytest.approx(1)
    assert metrics.values["APs"] is None
    assert metrics.values["AR100"] == pytest.approx(1)
    assert tuple(metrics.values) == METRIC_NAMES
    assert (metrics.n_images, metrics.n_detections) == (3, 2)


def test_one_of_two_found_is_half():
    metrics = coco_metrics(truth(), [found(1)])
    # precision 1 up to recall .5: 51 of 101 recall points
    assert pytest.approx(51 / 101) == metrics.AP


def test_classes_are_listed_with_their_objects():
    cat, dog = coco_metrics(truth(), [found(1), found(2, category_id=7)]).per_class
    assert (cat.name, cat.n_truth, dog.n_truth) == ("cat", 2, 0)
    assert pytest.approx(51 / 101) == cat.AP50
    assert dog.AP is None


def test_no_detection_at_all_is_zero():
    metrics = coco_metrics(truth(), [])
    assert metrics.AP == 0
    assert metrics.per_class[0].AP == 0


def test_no_annotation_at_all_is_undefined():
    metrics = coco_metrics(truth(0), [found(1)])
    assert metrics.AP is None
    json.dumps(metrics.to_json(), allow_nan=False)


def test_images_can_be_left_out():
    assert pytest.approx(1) == coco_metrics(truth(), [found(1)], image_ids=[1]).AP


def test_pycocotools_stays_silent(capsys: pytest.CaptureFixture[str]):
    coco_metrics(truth(), [found(1)])
    assert capsys.readouterr() == ("", "")


def test_the_input_is_left_as_it_was():
    annotations = truth()
    coco_metrics(annotations, [found(1)])
    assert annotations == truth()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (found(9), r"1 image ids of the results are not in the annotations \(first: \[9\]\)"),
        (found(1, category_id=1), r"category ids .*\(first: \[1\]\); theirs lie in 4\.\.7"),
    ],
)
def test_ids_of_another_data_set_are_named(row: dict, words: str):
    with pytest.raises(DataError, match=words):
        coco_metrics(truth(), [row])


def test_annotations_that_are_none_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="no annotations at"):
        coco_metrics(tmp_path / "a.json", [])
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match="no list 'images'"):
        coco_metrics(tmp_path / "a.json", [])
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="not a readable JSON"):
        coco_metrics(tmp_path / "a.json", [])
