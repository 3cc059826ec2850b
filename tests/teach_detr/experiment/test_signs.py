"""The loss on the annotations, and objects that no prediction is near."""

import json
from pathlib import Path

import pytest

from teach_detr.experiment.signs import near_share, truth_loss

CATEGORIES = [{"id": 1, "name": "cell"}, {"id": 2, "name": "rare"}, {"id": 3, "name": "none"}]


def test_the_loss_is_the_mean_over_the_end_of_training(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        {
            "kind": "train",
            "step": step,
            "loss": {"class": step, "box": 1, "giou": 2, "denoising": 9, "teacher:a": 50},
        }
        for step in (10, 50, 95, 100)
    ]
    rows.insert(2, {"kind": "eval", "step": 99, "AP": 0.5})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert truth_loss(path) == pytest.approx((95 + 100) / 2 + 3)
    assert truth_loss(tmp_path / "nothing") is None


def test_classes_without_a_query_near_them_are_seen() -> None:
    boxes = {1: [[0, 0, 10, 10], [50, 50, 10, 10]], 2: [[20, 20, 40, 40]]}
    truth = {
        "categories": CATEGORIES,
        "annotations": [
            {"image_id": 7, "category_id": category, "bbox": box}
            for category, mine in boxes.items()
            for box in mine
        ]
        + [{"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1}],
    }
    # of another class, and of a low score: near all the same; and one of another image
    results = [
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 9], "score": 0.01},
        {"image_id": 8, "category_id": 2, "bbox": [20, 20, 40, 40], "score": 0.9},
    ]
    assert near_share(truth, results) == {"cell": 0.5, "rare": 0.0, "none": None}
    assert near_share(truth, []) == {"cell": 0.0, "rare": 0.0, "none": None}
