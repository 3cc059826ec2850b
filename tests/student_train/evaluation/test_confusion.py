"""Confusions of classes: who is taken for whom, what is missed, what is made up."""

from typing import Any

import numpy as np
import pytest

from box_store.boxes import Boxes, to_xyxy
from box_store.coco.annotations import coco_of
from student_train.evaluation.confusion import Confusion, confusion_matrix
from student_train.evaluation.plots import plot_confusion

CATEGORIES = [{"id": 4, "name": "cat"}, {"id": 7, "name": "dog"}]


def row(category_id: int, x: float, score: float = 0.9, **more: Any) -> dict[str, Any]:
    box = [x, 0, 10, 10]
    return {"image_id": 1, "category_id": category_id, "bbox": box, "score": score, **more}


def confusion(truth: list[Any], found: list[Any], **thresholds: float) -> Confusion:
    images = [{"id": i, "file_name": f"{i}.png", "width": 600, "height": 100} for i in (1, 2)]
    rows = [{**each, "id": at} for at, each in enumerate(truth)]
    coco = coco_of({"images": images, "categories": CATEGORIES, "annotations": rows})
    boxes = Boxes(
        to_xyxy([each["bbox"] for each in found]),
        [each["score"] for each in found],
        [each["category_id"] for each in found],
        600,
        100,
    )
    return confusion_matrix(coco, [(1, boxes)], [1, 2], **thresholds)


def counts(truth: list[Any], found: list[Any], **thresholds: float) -> np.ndarray:
    return confusion(truth, found, **thresholds).counts


def test_every_object_and_detection_counts_once():
    truth = [row(4, 0), row(4, 100), row(7, 200), row(7, 300)]
    found = [row(4, 1), row(7, 101), row(7, 201), row(4, 500)]
    #      cat dog nothing
    assert counts(truth, found).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 0]]


def test_the_same_class_is_meant_before_a_nearer_other():
    truth = [row(4, 0), row(7, 2)]
    assert counts(truth, [row(7, 0)]).tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_an_object_is_found_once():
    assert counts([row(4, 0)], [row(4, 0), row(4, 1, 0.8)]).tolist()[2] == [1, 0, 0]


def test_weak_detections_and_crowds_do_not_count():
    truth = [row(4, 0, iscrowd=1)]
    assert counts(truth, [row(7, 0), row(4, 50, 0.2)]).sum() == 0
    assert counts(truth, [row(7, 0), row(4, 50, 0.2)], score=0.1).sum() == 1


def test_the_worst_confusions_are_named(tmp_path, monkeypatch: pytest.MonkeyPatch):
    found = [row(7, 0), row(7, 100), row(7, 200)]
    mixed = confusion([row(4, 0), row(4, 100), row(7, 200)], found)
    assert mixed.worst(3) == [("cat", "dog", 2)]
    assert mixed.to_json()["names"] == ["cat", "dog", "nothing"]
    pytest.importorskip("matplotlib")
    plot_confusion(mixed.names, mixed.counts, tmp_path / "c.png")
    from matplotlib.axes import Axes

    written: list[str] = []
    text = Axes.text
    monkeypatch.setattr(
        Axes, "text", lambda self, x, y, s, **k: written.append(s) or text(self, x, y, s, **k)
    )
    numbers = np.array([[3, 0], [1234, 56_789]])
    plot_confusion(["a", "nothing"], numbers, tmp_path / "d.png")
    assert written == ["3", "1.2k", "57k"], "a number in every cell that is not empty"
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
