"""AP over resampled images: pycocotools' number, with images counted more than once."""

import json
from typing import Any

import numpy as np
import pytest

from student_train.evaluation.coco_metrics import coco_metrics
from teach_detr.experiment.resampling import Matches, draw_images

N_IMAGES = 12


@pytest.fixture
def truth() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = []
    for image in range(1, N_IMAGES + 1):
        for _ in range(int(rng.integers(0, 6))):
            x, y, w, h = (float(v) for v in rng.uniform((0, 0, 6, 6), (60, 60, 120, 120)))
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, 4)),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    return {
        "images": [{"id": i, "width": 200, "height": 200} for i in range(1, N_IMAGES + 1)],
        # no object has the last class
        "categories": [{"id": i, "name": str(i)} for i in range(1, 5)],
        "annotations": rows,
    }


def detections(truth: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Objects found roughly, some twice, some as another class; scores with ties."""
    rng = np.random.default_rng(seed)
    found = []
    for row in truth["annotations"]:
        for _ in range(int(rng.integers(0, 3))):
            box = np.asarray(row["bbox"]) + rng.normal(0, 4, 4)
            found.append(
                {
                    "image_id": row["image_id"],
                    "category_id": row["category_id"] if rng.random() < 0.8 else 4,
                    "bbox": [float(v) for v in [*box[:2], *box[2:].clip(2)]],
                    "score": round(float(rng.random()), 1),
                }
            )
    return found


def repeated(truth: dict[str, Any], found: list[Any], weights: np.ndarray) -> tuple[Any, Any]:
    """The data set that holds image i `weights[i]` times."""
    images, rows, results = [], [], []
    for place, image in enumerate(truth["images"]):
        for _ in range(int(weights[place])):
            new = len(images) + 1
            images.append({**image, "id": new})
            rows += [
                {**row, "id": len(rows) + i, "image_id": new}
                for i, row in enumerate(
                    (r for r in truth["annotations"] if r["image_id"] == image["id"]), start=1
                )
            ]
            results += [{**r, "image_id": new} for r in found if r["image_id"] == image["id"]]
    return {**truth, "images": images, "annotations": rows}, results


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_one_give_pycocotools_number(truth: dict[str, Any], seed: int) -> None:
    found = detections(truth, seed)
    assert Matches(truth, found).ap()[0] == pytest.approx(coco_metrics(truth, found).AP, abs=1e-12)


def test_weights_repeat_images(truth: dict[str, Any]) -> None:
    found = detections(truth, 1)
    weights = draw_images(N_IMAGES, 5, seed=3)
    weights[4] = 0
    weights[4, 2] = N_IMAGES
    ap = Matches(truth, found).ap(weights)
    for row, value in zip(weights, ap, strict=True):
        expected = coco_metrics(*repeated(truth, found, row)).AP
        assert (
            value == pytest.approx(expected, abs=1e-12)
            if expected is not None
            else (np.isnan(value))
        )


def test_many_resamples_are_like_one_at_a_time(truth: dict[str, Any]) -> None:
    matches = Matches(truth, detections(truth, 2))
    weights = draw_images(N_IMAGES, 70, seed=0)
    alone = [matches.ap(row[None])[0] for row in weights]
    np.testing.assert_allclose(matches.ap(weights), alone, atol=1e-12)


def test_nothing_found_and_nothing_there(truth: dict[str, Any]) -> None:
    assert Matches(truth, []).ap()[0] == 0
    empty = json.loads(json.dumps({**truth, "annotations": []}))
    assert np.isnan(Matches(empty, detections(truth, 0)).ap()[0])


def test_drawing_images_is_seeded_and_keeps_their_number() -> None:
    drawn = draw_images(30, 8, seed=5)
    assert drawn.shape == (8, 30)
    assert (drawn.sum(1) == 30).all()
    assert (drawn == draw_images(30, 8, seed=5)).all()
    assert (drawn != draw_images(30, 8, seed=6)).any()
