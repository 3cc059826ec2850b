"""Boxes as supervision has them."""

import numpy as np
import pytest

from box_store.boxes import Boxes
from box_store.errors import UsageError

BOXES = Boxes(
    np.array([[1, 2, 30, 40], [5, 5, 9, 9]]), np.array([0.9, 0.5]), np.array([1, 0]), 64, 48
)


def test_boxes_become_detections() -> None:
    supervision = pytest.importorskip("supervision")
    found = BOXES.to_supervision(("cat", "dog"))
    assert isinstance(found, supervision.Detections)
    np.testing.assert_array_equal(found.xyxy, BOXES.boxes_xyxy)
    np.testing.assert_array_equal(found.confidence, BOXES.scores)
    assert found.class_id.tolist() == [1, 0]
    assert found.data["class_name"].tolist() == ["dog", "cat"]
    # a user's own boxes stay as they are
    found.xyxy[0] = 0
    assert BOXES.boxes_xyxy[0].any()
    assert len(found[found.confidence > 0.6]) == 1
    picture = supervision.BoxAnnotator().annotate(np.zeros((48, 64, 3), np.uint8), found)
    assert picture.any()
    assert len(Boxes.empty(64, 48).to_supervision(("cat",))) == 0


def test_class_ids_without_a_name_are_refused() -> None:
    pytest.importorskip("supervision")
    with pytest.raises(UsageError, match="class ids reach from 0 to 1, and there are 1 class"):
        BOXES.to_supervision(("cat",))


def test_without_supervision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(UsageError, match=r"pip install 'teach-detr\[supervision\]'"):
        BOXES.to_supervision()
