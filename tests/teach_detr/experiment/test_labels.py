"""Labels of an experiment: what is sampled, spoiled and added."""

from typing import Any

import numpy as np
import pytest

from box_store import Boxes
from teach_detr.experiment.config import Condition, Wrong
from teach_detr.experiment.labels import add_boxes, sample_images, spoil_labels
from teach_detr.experiment.wrong_teacher import move_some


@pytest.fixture
def table() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = []
    for image in range(1, 101):
        for _ in range(10):
            x, y = (float(v) for v in rng.uniform(0, 60, 2))
            w, h = (float(v) for v in rng.uniform(10, 40, 2))
            row = {"id": len(rows) + 1, "image_id": image, "category_id": int(rng.integers(1, 5))}
            rows.append({**row, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
    rows[0] |= {"iscrowd": 1, "segmentation": {}}
    rows[1]["segmentation"] = [[0, 0, 1, 1, 2, 0]]
    return {
        "images": [{"id": i, "width": 100, "height": 100} for i in range(1, 101)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, 5)],
        "annotations": rows,
    }


def by_id(table: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in table["annotations"]}


def test_missing_leaves_out_the_share_and_touches_nothing_else(table: dict[str, Any]) -> None:
    left = spoil_labels(table, Condition(missing=0.4), seed=0)
    assert len(left["annotations"]) == pytest.approx(600, abs=50)
    before = by_id(table)
    assert all(row == before[row["id"]] for row in left["annotations"])
    assert 1 in by_id(left), "crowd regions stay"


def test_swapped_classes_are_others_and_boxes_stay(table: dict[str, Any]) -> None:
    spoiled = by_id(spoil_labels(table, Condition(swapped=0.2), seed=0))
    before = by_id(table)
    changed = [i for i in before if spoiled[i]["category_id"] != before[i]["category_id"]]
    assert len(changed) == pytest.approx(200, abs=40)
    assert all(spoiled[i]["bbox"] == before[i]["bbox"] for i in before)
    assert {spoiled[i]["category_id"] for i in changed} == {1, 2, 3, 4}


def test_jitter_moves_sides_and_stays_in_the_image(table: dict[str, Any]) -> None:
    spoiled = by_id(spoil_labels(table, Condition(jitter=0.1), seed=0))
    before = by_id(table)
    shifts = []
    for i in list(before)[1:]:
        x, y, w, h = spoiled[i]["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + w <= 100.01
        assert y + h <= 100.01
        assert w >= 1
        assert h >= 1
        assert spoiled[i]["area"] == pytest.approx(w * h, abs=0.02)
        shifts.append((x - before[i]["bbox"][0]) / before[i]["bbox"][2])
    assert np.std(shifts) == pytest.approx(0.1, rel=0.15)
    assert "segmentation" not in spoiled[2]


def test_what_happens_to_a_label_does_not_hang_on_the_others(table: dict[str, Any]) -> None:
    condition = Condition(missing=0.3, swapped=0.3, jitter=0.1)
    whole = by_id(spoil_labels(table, condition, seed=4))
    sample = sample_images(table, 30, seed=1)
    part = by_id(spoil_labels(sample, condition, seed=4))
    ids = {image["id"] for image in sample["images"]}
    assert part == {i: row for i, row in whole.items() if row["image_id"] in ids}


def test_a_sample_is_seeded_and_in_the_order_of_the_file(table: dict[str, Any]) -> None:
    ids = [image["id"] for image in sample_images(table, 20, seed=0)["images"]]
    assert len(ids) == 20
    assert ids == sorted(ids)
    assert ids == [image["id"] for image in sample_images(table, 20, seed=0)["images"]]
    assert ids != [image["id"] for image in sample_images(table, 20, seed=1)["images"]]
    assert sample_images(table, None, 0) is table
    assert sample_images(table, 1000, 0) is table


def boxes(corners: list[list[float]], ids: list[int]) -> Boxes:
    scores = np.linspace(0.9, 0.5, len(ids), dtype=np.float32)
    return Boxes(np.asarray(corners, np.float32), scores, ids, 100, 100)  # type: ignore[arg-type]


def test_merged_boxes_become_labels(table: dict[str, Any]) -> None:
    table = {**table, "annotations": table["annotations"][:1]}
    table["annotations"][0] |= {"bbox": [10.0, 10.0, 20.0, 20.0], "category_id": 2, "image_id": 1}
    found = {
        1: [boxes([[10, 10, 30, 30], [10, 10, 30, 30]], [2, 3]), boxes([[10, 10, 30, 29]], [3])],
        7: [boxes([[50, 50, 60, 60]], [1])],
    }
    everything = add_boxes(table, found, iou=1.0)["annotations"]
    assert [(row["image_id"], row["category_id"]) for row in everything] == [
        (1, 2),
        (1, 2),
        (1, 3),
        (1, 3),
        (7, 1),
    ]
    assert len({row["id"] for row in everything}) == 5
    assert everything[-1]["bbox"] == [50, 50, 10, 10]
    # of the same class and nearly the same place: once
    once = add_boxes(table, found, iou=0.6)["annotations"]
    assert [(row["image_id"], row["category_id"]) for row in once] == [(1, 2), (1, 3), (7, 1)]


def test_a_wrong_teacher_moves_its_share_and_keeps_scores_and_sizes() -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 70, (2000, 2))
    size = rng.uniform(5, 30, (2000, 2))
    right = Boxes(
        np.concatenate([start, start + size], 1).astype(np.float32),
        rng.random(2000).astype(np.float32),
        np.ones(2000, np.int32),
        100,
        100,
    )
    wrong = move_some(right, Wrong(of="x", share=0.5, shift=(0.5, 1.0)), np.random.default_rng(1))
    shift = (wrong.boxes_xyxy - right.boxes_xyxy)[:, :2] / size
    moved = np.abs(shift).max(1) > 0.01
    assert moved.mean() == pytest.approx(0.5, abs=0.04)
    assert (np.abs(shift[moved]).min(1) > 0.3).mean() > 0.95
    assert (wrong.scores == right.scores).all()
    assert wrong.boxes_xyxy.min() >= 0
    assert wrong.boxes_xyxy.max() <= 100
