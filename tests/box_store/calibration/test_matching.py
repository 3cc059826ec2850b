"""Hits and misses are pycocotools' own."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from box_store.boxes import Boxes
from box_store.calibration.matching import HIT, IGNORED, MISS, match_boxes
from box_store.coco.annotations import Annotations


def crowded(seed: int, n_boxes: int = 40, n_truth: int = 12) -> tuple[Boxes, Annotations]:
    """Boxes thrown around objects that overlap each other, some of them crowds."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (n_truth, 2))
    truth = np.concatenate([corner, rng.integers(15, 40, (n_truth, 2))], axis=1).astype(np.float32)
    near = truth[rng.integers(0, n_truth, n_boxes)] + rng.integers(-5, 6, (n_boxes, 4))
    xyxy = np.concatenate([near[:, :2], near[:, :2] + np.maximum(near[:, 2:], 4)], axis=1)
    found = Boxes(xyxy, rng.random(n_boxes), rng.integers(1, 3, n_boxes), 100, 100).sorted()
    return found, Annotations(
        truth,
        rng.integers(1, 3, n_truth).astype(np.int32),
        rng.random(n_truth) < 0.3,
        truth[:, 2] * truth[:, 3],
    )


def of_pycocotools(boxes: Boxes, truth: Annotations, iou: float) -> np.ndarray:
    """Outcomes by COCOeval, in the order of `boxes`."""
    gt, dt = COCO(), COCO()
    base = {"images": [{"id": 1}], "categories": [{"id": 1}, {"id": 2}]}
    gt.dataset = base | {
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": int(truth.category_ids[i]),
                "bbox": truth.boxes_xywh[i].tolist(),
                "area": float(truth.areas[i]),
                "iscrowd": int(truth.iscrowd[i]),
            }
            for i in range(len(truth))
        ]
    }
    xywh = boxes.boxes_xyxy.copy()
    xywh[:, 2:] -= xywh[:, :2]
    dt.dataset = base | {
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": int(boxes.class_ids[i]),
                "bbox": xywh[i].tolist(),
                "score": float(boxes.scores[i]),
                "area": float(boxes.areas[i]),
                "iscrowd": 0,
            }
            for i in range(len(boxes))
        ]
    }
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        dt.createIndex()
        evaluation = COCOeval(gt, dt, "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
    outcome = np.zeros(len(boxes), np.int8)
    for row in filter(None, evaluation.evalImgs):
        for i, match, ignored in zip(
            row["dtIds"], row["dtMatches"][0], row["dtIgnore"][0], strict=True
        ):
            outcome[i - 1] = IGNORED if ignored else HIT if match else MISS
    return outcome


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_outcomes_are_those_of_pycocotools(seed: int, iou: float) -> None:
    boxes, truth = crowded(seed)
    expected = of_pycocotools(boxes, truth, iou)
    assert match_boxes(boxes, truth, iou).tolist() == expected.tolist()
    if (seed, iou) == (0, 0.5):
        assert {HIT, MISS, IGNORED} == set(expected.tolist())


def test_an_object_is_found_once_and_by_its_best_box() -> None:
    boxes = Boxes(
        [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]], [0.9, 0.8, 0.7], [1, 1, 2], 20, 20
    )
    truth = Annotations(
        np.array([[0, 0, 10, 9]], np.float32),
        np.array([1], np.int32),
        np.array([False]),
        np.array([90], np.float32),
    )
    assert match_boxes(boxes, truth, 0.5).tolist() == [HIT, MISS, MISS]
    assert match_boxes(Boxes.empty(20, 20), truth, 0.5).tolist() == []
