"""COCO metrics equal pycocotools', also where there is nothing to count."""

import json
from pathlib import Path

import numpy as np
import pytest

from box_store.errors import DataError, UsageError
from student_train.evaluation.coco_metrics import BACKENDS, METRIC_NAMES, coco_metrics


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


def test_both_backends_agree():
    """On crowded random boxes, with scores that tie, crowds and classes without objects."""
    pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(0)
    annotations = truth(0)
    annotations["images"] = [{"id": i, "width": 200, "height": 200} for i in range(1, 13)]
    annotations["annotations"] = [
        {
            "image_id": int(rng.integers(1, 13)),
            "category_id": 4,
            "bbox": [*rng.integers(0, 120, 2).tolist(), *rng.integers(5, 80, 2).tolist()],
            "iscrowd": int(rng.random() < 0.1),
        }
        for _ in range(80)
    ]
    results = [
        {**found(row["image_id"], float(rng.choice([0.3, 0.6, 0.9]))), "bbox": moved}
        for row in annotations["annotations"]
        for moved in [[v + int(rng.integers(-6, 7)) for v in row["bbox"][:2]] + row["bbox"][2:]]
    ]
    ours, fast = (coco_metrics(annotations, results, backend=name).to_json() for name in BACKENDS)
    assert 0.1 < ours["AP"] < 0.9
    for name in METRIC_NAMES:
        assert fast[name] == pytest.approx(ours[name], abs=1e-9)
        assert fast["per_class"][0][name] == pytest.approx(ours["per_class"][0][name], abs=1e-9)


def test_a_backend_that_is_none_is_named():
    with pytest.raises(UsageError, match="Did you mean 'faster-coco-eval'"):
        coco_metrics(truth(), [], backend="faster-coco")


def test_curves_fall_from_perfect_to_nothing():
    curves = coco_metrics(truth(), [found(1, 0.8), found(3, 0.5)]).curves.to_json()
    assert (len(curves["recall"]), curves["recall"][0], curves["recall"][-1]) == (101, 0, 1)
    assert curves["precision"]["AP50"][:51] == pytest.approx([1.0] * 51)
    assert curves["precision"]["AP50"][51:] == [0.0] * 50
    (cat,) = curves["per_class"]
    assert (cat["name"], cat["score"][0]) == ("cat", pytest.approx(0.8))


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
