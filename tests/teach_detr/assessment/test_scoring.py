"""AP of every teacher and of the fusion, over the images that each covers."""

import json
from pathlib import Path

import pytest

from box_store import BoxStore, load_coco
from box_store.errors import DataError, UnknownTeacher
from teach_detr.assessment.scoring import score_teachers


def by_name(scores):
    return {score.teacher: score.metrics.values for score in scores}


def test_a_perfect_teacher_has_ap_1_and_one_that_misses_half_about_half(small_store) -> None:
    scores = by_name(score_teachers(BoxStore.open(small_store.path), small_store.annotations))
    assert list(scores) == ["oracle", "half", "fused"] or set(scores) == {"oracle", "half", "fused"}
    assert scores["oracle"]["AP"] == pytest.approx(1.0)
    # all dogs, no cat
    assert scores["half"]["AP"] == pytest.approx(0.5)
    assert scores["oracle"]["AR100"] == pytest.approx(1.0)
    assert scores["oracle"]["APs"] is None


def test_json_has_the_promised_keys(small_store) -> None:
    score = score_teachers(BoxStore.open(small_store.path), small_store.annotations)[0].to_json()
    assert {"teacher", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"} <= set(score)
    assert score["n_images"] == 6


def test_only_covered_images_count(small_store, tmp_path: Path) -> None:
    """Annotations that list more images than a teacher saw do not lower its AP."""
    document = json.loads(small_store.annotations.read_text())
    document["images"].append({"id": 99, "file_name": "99.jpg", "width": 100, "height": 80})
    document["annotations"].append(
        {"id": 99, "image_id": 99, "category_id": 3, "bbox": [1, 1, 50, 50], "area": 2500}
    )
    more = tmp_path / "more.json"
    more.write_text(json.dumps(document))
    scores = score_teachers(BoxStore.open(small_store.path), more, with_fusion=False)
    assert by_name(scores)["oracle"]["AP"] == pytest.approx(1.0)
    assert scores[0].metrics.n_images == 6


def test_a_score_floor_above_all_boxes_leaves_nothing(small_store) -> None:
    store = BoxStore.open(small_store.path)
    scores = score_teachers(store, small_store.annotations, names=["oracle"], score_floor=0.9)
    assert by_name(scores) == {"oracle": pytest.approx({**by_name(scores)["oracle"], "AP": 0.0})}


def test_other_images_other_categories_and_other_teachers_are_named(
    small_store, tmp_path: Path
) -> None:
    store = BoxStore.open(small_store.path)
    document = json.loads(small_store.annotations.read_text())
    elsewhere = tmp_path / "elsewhere.json"
    for row in document["images"]:
        row["id"] += 1000
    for row in document["annotations"]:
        row["image_id"] += 1000
    elsewhere.write_text(json.dumps(document))
    assert len(load_coco(elsewhere).images) == 6
    with pytest.raises(DataError, match=r"no teacher .* saw an image"):
        score_teachers(store, elsewhere)
    document["categories"][0]["name"] = "horse"
    elsewhere.write_text(json.dumps(document))
    with pytest.raises(DataError, match="other categories than the store"):
        score_teachers(store, elsewhere)
    with pytest.raises(UnknownTeacher, match="Did you mean 'oracle'"):
        score_teachers(store, small_store.annotations, names=["orcale"])
