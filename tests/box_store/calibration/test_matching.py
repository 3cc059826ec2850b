"""Hits and misses are pycocotools' own."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from box_store.boxes import Boxes, iou_of, pairwise_iou
from box_store.calibration.matching import HIT, IGNORED, MISS, BoxRows, match, match_boxes
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
        for i, found, ignored in zip(
            row["dtIds"], row["dtMatches"][0], row["dtIgnore"][0], strict=True
        ):
            outcome[i - 1] = IGNORED if ignored else HIT if found else MISS
    return outcome


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_outcomes_are_those_of_pycocotools(seed: int, iou: float) -> None:
    boxes, truth = crowded(seed)
    expected = of_pycocotools(boxes, truth, iou)
    assert match_boxes(boxes, truth, iou).outcome.tolist() == expected.tolist()
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
    assert match_boxes(boxes, truth, 0.5).outcome.tolist() == [HIT, MISS, MISS]
    assert match_boxes(Boxes.empty(20, 20), truth, 0.5).outcome.tolist() == []
    nothing = Annotations(
        truth.boxes_xywh[:0], truth.category_ids[:0], truth.iscrowd[:0], truth.areas[:0]
    )
    assert match_boxes(boxes, nothing, 0.5).outcome.tolist() == [MISS] * 3


def one_after_the_other(
    boxes: Boxes, truth: Annotations, iou: float, across_classes: bool
) -> list[int]:
    """The object that each box takes, -1 for none, as the rule is told: boxes choose in turn."""
    overlaps = pairwise_iou(boxes.boxes_xyxy, truth.boxes_xyxy)
    same = boxes.class_ids[:, None] == truth.category_ids[None]
    taken: list[int] = []
    for row in range(len(boxes)):
        left = [
            column
            for column in range(len(truth))
            if not truth.iscrowd[column]
            and column not in taken
            and overlaps[row, column] >= iou
            and (same[row, column] or across_classes)
        ]
        liking = [(same[row, column], overlaps[row, column], column) for column in left]
        taken.append(max(liking)[2] if liking else -1)
    return taken


@given(
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    n_boxes=st.integers(0, 30),
    n_truth=st.integers(1, 10),
    iou=st.sampled_from([0.1, 0.5, 0.75, 1.0]),
    across_classes=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_images_together_are_matched_as_each_alone_and_as_boxes_in_turn(
    seeds: list[int], n_boxes: int, n_truth: int, iou: float, across_classes: bool
) -> None:
    images = [crowded(seed, n_boxes, n_truth) for seed in seeds]
    apart = [match_boxes(*image, iou, across_classes=across_classes) for image in images]
    for (boxes, truth), alone in zip(images, apart, strict=True):
        found = np.where(alone.outcome == HIT, alone.objects, -1)
        assert found.tolist() == one_after_the_other(boxes, truth, iou, across_classes)
        at = np.flatnonzero(alone.objects >= 0)
        pairs = boxes.boxes_xyxy[at], truth.boxes_xyxy[alone.objects[at]]
        assert alone.overlaps[at].tolist() == iou_of(*pairs).tolist()
    places = np.repeat(np.arange(len(images)), n_boxes), np.repeat(np.arange(len(images)), n_truth)
    together = match(
        BoxRows(
            places[0],
            np.concatenate([boxes.class_ids for boxes, _ in images]),
            np.concatenate([boxes.boxes_xyxy for boxes, _ in images]),
        ),
        BoxRows(
            places[1],
            np.concatenate([truth.category_ids for _, truth in images]),
            np.concatenate([truth.boxes_xyxy for _, truth in images]),
        ),
        np.concatenate([truth.iscrowd for _, truth in images]),
        iou,
        across_classes=across_classes,
    )
    assert together.outcome.tolist() == np.concatenate([m.outcome for m in apart]).tolist()
    rows = np.concatenate(
        [np.where(m.objects < 0, -1, m.objects + n_truth * at) for at, m in enumerate(apart)]
    )
    assert together.objects.tolist() == rows.tolist()
