"""COCO metrics equal pycocotools', also where there is nothing to count."""

import json
from pathlib import Path

import numpy as np
import pytest

from box_store.boxes import Boxes, to_xyxy
from box_store.errors import DataError, UsageError
from box_store.results.exporting import detections
from student_train.evaluation.coco_arrays import DetectionArrays
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


def random_set(seed: int):
    """Annotations and results with crowds, ties, ids from 0, absent classes, images with nothing;
    boxes that miss, repeat and cover each other."""
    rng = np.random.default_rng(seed)
    n_images, n_classes = int(rng.integers(1, 25)), int(rng.integers(1, 6))
    annotations = {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(n_images)],
        # the first and the last have no object
        "categories": [{"id": i, "name": f"class {i}"} for i in range(n_classes + 2)],
        "annotations": [],
    }
    results = []
    for at in range(int(rng.integers(1, 150))):
        box = np.round([*rng.uniform(0, 400, 2), *rng.uniform(2, 220, 2)], 2).tolist()
        row = {
            "id": at,
            "image_id": int(rng.integers(0, n_images)),
            "category_id": int(rng.integers(1, n_classes + 1)),
            "bbox": box,
            "iscrowd": int(rng.random() < 0.1),
        }
        if rng.random() < 0.5:
            row["area"] = float(rng.uniform(0.3, 1) * box[2] * box[3])
        annotations["annotations"].append(row)
        for _ in range(int(rng.integers(0, 4))):
            moved = np.maximum(np.round(np.array(box) + rng.normal(0, 5, 4), 2), 0).tolist()
            results.append(
                {
                    "image_id": row["image_id"],
                    "category_id": int(rng.integers(0, n_classes + 2))
                    if rng.random() < 0.2
                    else row["category_id"],
                    "bbox": moved,
                    "score": float(rng.integers(0, 12)) / 12,
                }
            )
    order = rng.permutation(len(results))
    return annotations, [results[i] for i in order]


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("seed", range(6))
def test_every_backend_gives_the_numbers_of_pycocotools(backend, seed):
    pytest.importorskip(backend.replace("-", "_"), reason="needs the extra `eval`")
    annotations, results = random_set(seed)
    chosen = None if seed % 2 else range(0, len(annotations["images"]), 2)
    ours, fast = (
        coco_metrics(annotations, results, chosen, backend=name)
        for name in ("pycocotools", backend)
    )
    assert_same(ours.to_json(), fast.to_json())
    assert_same(ours.curves.to_json(), fast.curves.to_json())
    assert_same(ours.recall_by_size, fast.recall_by_size)


def assert_same(one, other, where=""):
    """Equal to 1e-9, all the way down."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for at, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{at}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-9), where
    else:
        assert one == other, where


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_object_of_id_0_is_an_object(backend):
    # pycocotools itself takes 0 for no match, and loses one object of every such file
    pytest.importorskip(backend.replace("-", "_"), reason="needs the extra `eval`")
    annotations = truth()
    for at, row in enumerate(annotations["annotations"]):
        row["id"] = at
    results = [
        {**found(1), **{k: row[k] for k in ("image_id", "category_id", "bbox")}}
        for row in annotations["annotations"]
    ]
    assert pytest.approx(1) == coco_metrics(annotations, results, backend=backend).AP


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_and_no_objects(backend):
    pytest.importorskip(backend.replace("-", "_"), reason="needs the extra `eval`")
    assert coco_metrics(truth(), [], backend=backend).AP == 0
    assert coco_metrics(truth(0), [], backend=backend).AP is None
    assert coco_metrics(truth(0), [found(1)], backend=backend).AP is None


def test_arrays_are_what_was_found_and_a_file_rounds_it():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 640, (500, 2, 2)).astype(np.float32), axis=1).reshape(-1, 4)
    scores = rng.random(500, np.float32)
    boxes = Boxes(corners, scores, np.full(500, 3, np.int32), 640, 640)
    arrays = DetectionArrays.of_images([(7, boxes)])
    again = DetectionArrays.of_rows(list(detections(7, boxes)))
    for name, digits in (("image_ids", 0), ("category_ids", 0), ("boxes_xywh", 4), ("scores", 5)):
        found = getattr(arrays, name)
        np.testing.assert_array_equal(found.round(digits), getattr(again, name))
    assert (arrays.scores == scores).all()
    np.testing.assert_allclose(to_xyxy(arrays.boxes_xywh), corners, atol=1e-9)


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
    with pytest.raises(DataError, match="no annotation file at"):
        coco_metrics(tmp_path / "a.json", [])
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match="looks like a results file"):
        coco_metrics(tmp_path / "a.json", [])
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        coco_metrics(tmp_path / "a.json", [])
