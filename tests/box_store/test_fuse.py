import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store.boxes import Boxes, pairwise_iou
from box_store.errors import UsageError
from box_store.fuse import FusionConfig, fuse

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = json.loads((GOLDEN / "teach_fusion.json").read_text())["cases"]
quick = settings(max_examples=30, deadline=None)


def random_boxes(seed: int, n: int, classes: int = 3) -> Boxes:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 70, (n, 2))
    return Boxes(
        np.concatenate([corner, corner + rng.uniform(5, 40, (n, 2))], 1),
        rng.permutation(n * 7)[:n] / (n * 7 + 1),
        rng.integers(1, classes + 1, n),
        100,
        100,
    ).clipped()


@pytest.mark.parametrize("case", CASES, ids=[f"{c['case']}-{c['kind']}" for c in CASES])
def test_the_released_rule_case_by_case(case: dict[str, Any]) -> None:
    with np.load(GOLDEN / "teach_fusion.npz") as golden:
        key = case["case"]
        width, height = golden[f"{key}/size_wh"].tolist()
        given_boxes: dict[str, Boxes] = {}
        for name in case["present"]:
            xywh = golden[f"{key}/{name}/boxes_xywh"].reshape(-1, 4)
            given_boxes[name] = Boxes(
                np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                golden[f"{key}/{name}/scores"],
                golden[f"{key}/{name}/labels"],
                width,
                height,
            )
        expected = {
            name: golden[f"{key}/out/{name}"] for name in ("boxes_xyxy", "labels", "scores")
        }
    config = FusionConfig(iou=0.2, weights=case["weights"])
    if not given_boxes:
        # the released code invents a full-image box of score 0; here such an image has no fusion
        with pytest.raises(UsageError, match="nothing to fuse"):
            fuse(given_boxes, config)
        return
    fused = fuse(given_boxes, config)
    assert fused.class_ids.tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(fused.boxes_xyxy, expected["boxes_xyxy"], atol=1e-3)
    np.testing.assert_allclose(fused.scores, expected["scores"], atol=1e-6)


def test_weights_change_the_order_only_if_unequal() -> None:
    a = Boxes([[0, 0, 10, 10]], [0.6], [1], 20, 20)  # type: ignore[arg-type]
    b = Boxes([[1, 0, 11, 10]], [0.5], [1], 20, 20)  # type: ignore[arg-type]
    assert fuse({"a": a, "b": b}, FusionConfig()) == a
    assert fuse({"a": a, "b": b}, FusionConfig(weights={"a": 2.0, "b": 2.0})) == a
    assert fuse({"a": a, "b": b}, FusionConfig(weights={"b": 0.9})) == b


def test_a_teacher_that_saw_nothing_counts_for_the_quota() -> None:
    boxes = random_boxes(1, 9)
    nothing = Boxes.empty(100, 100)
    assert len(fuse({"a": boxes, "b": nothing}, FusionConfig(iou=1))) == len(boxes) // 2
    assert len(fuse({"a": boxes, "b": nothing}, FusionConfig(iou=1, quota=False))) == len(boxes)


@quick
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.sampled_from(["nms", "wbf"]),
    st.booleans(),
)
def test_fusion_stays_within_the_quota_the_image_and_the_classes(
    counts: list[int], seed: int, method: str, quota: bool
) -> None:
    teachers = {str(i): random_boxes(seed + i, n) for i, n in enumerate(counts)}
    fused = fuse(teachers, FusionConfig(method=method, iou=0.3, quota=quota))  # type: ignore[arg-type]
    total = sum(len(boxes) for boxes in teachers.values())
    assert len(fused) <= (total // len(teachers) if quota else total)
    assert fused.clipped() == fused
    assert set(fused.class_ids.tolist()) <= {
        int(k) for boxes in teachers.values() for k in boxes.class_ids
    }
    if method == "nms":
        same = fused.class_ids[:, None] == fused.class_ids[None]
        overlap = pairwise_iou(fused.boxes_xyxy, fused.boxes_xyxy)
        np.fill_diagonal(overlap, 0)
        assert (overlap[same] <= 0.3).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_weighted_boxes_fusion_equals_the_reference(seed: int, weights: tuple[float, ...]) -> None:
    reference = pytest.importorskip("ensemble_boxes").weighted_boxes_fusion
    teachers = {name: random_boxes(seed * 10 + k, 12) for k, name in enumerate("abc")}
    ours = fuse(
        teachers,
        FusionConfig("wbf", 0.4, dict(zip("abc", weights, strict=True)), quota=False),
    )
    boxes, scores, labels = reference(
        [boxes.boxes_xyxy.astype(float) / 100 for boxes in teachers.values()],
        [boxes.scores.astype(float) for boxes in teachers.values()],
        [boxes.class_ids for boxes in teachers.values()],
        weights=list(weights),
        iou_thr=0.4,
        skip_box_thr=0.0,
    )
    # equal scores may come in either order
    order, theirs = np.lexsort((ours.boxes_xyxy[:, 0], -ours.scores)), np.asarray(boxes) * 100
    their_order = np.lexsort((theirs[:, 0], -np.minimum(scores, 1)))
    np.testing.assert_allclose(ours.scores[order], np.minimum(scores, 1)[their_order], atol=1e-5)
    np.testing.assert_allclose(ours.boxes_xyxy[order], theirs[their_order], atol=1e-3)
    assert ours.class_ids[order].tolist() == labels[their_order].astype(int).tolist()


def test_weighted_boxes_fusion_by_hand() -> None:
    a = Boxes([[0, 0, 10, 10]], [0.9], [1], 20, 20)  # type: ignore[arg-type]
    b = Boxes([[0, 0, 10, 12], [15, 15, 20, 20]], [0.3, 0.8], [1, 2], 20, 20)  # type: ignore[arg-type]
    fused = fuse({"a": a, "b": b}, FusionConfig("wbf", 0.5, quota=False))
    # agreed: mean weighted 3 : 1, mean confidence; alone: half the confidence
    np.testing.assert_allclose(fused.boxes_xyxy, [[0, 0, 10, 10.5], [15, 15, 20, 20]], atol=1e-5)
    np.testing.assert_allclose(fused.scores, [0.6, 0.4], atol=1e-6)
    assert fused.class_ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    "values",
    [
        {"method": "soft"},
        {"iou": 1.5},
        {"weights": {"a": -1.0}},
        {"weights": {"a": float("nan")}},
        {"method": "wbf", "weights": {"a": 0.0}},
    ],
)
def test_settings_without_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        FusionConfig(**values)


def test_teachers_that_disagree_about_the_size_are_refused() -> None:
    with pytest.raises(UsageError, match="disagree about the image's size"):
        fuse({"a": Boxes.empty(9, 9), "b": Boxes.empty(9, 8)}, FusionConfig())


@quick
@given(seed=st.integers(0, 1000))
def test_soft_nms_lowers_scores_as_the_reference_does(seed: int) -> None:
    linear_soft_nms = pytest.importorskip("ensemble_boxes.ensemble_boxes_nms").cpu_soft_nms_float
    boxes = random_boxes(seed, 15, classes=1)
    config = FusionConfig("soft_nms", 0.3, quota=False, weights={"one": 0.0})
    # it lowers the scores in place and swaps them about, so only the set of them compares
    scores = boxes.scores.astype(np.float64)
    linear_soft_nms(boxes.boxes_xyxy / 100.0, scores, 0.3, 0.5, -1, 1)
    np.testing.assert_allclose(
        np.sort(fuse({"one": boxes}, config).scores), np.sort(scores), atol=1e-6
    )


@quick
@given(seed=st.integers(0, 1000))
def test_soft_nms_only_lowers_and_spares_what_stands_alone(seed: int) -> None:
    boxes = random_boxes(seed, 15)
    fused = fuse({"one": boxes}, FusionConfig("soft_nms", 0.3, quota=False))
    assert len(fused) == len(boxes)
    overlap = pairwise_iou(fused.boxes_xyxy, boxes.boxes_xyxy)
    same = fused.class_ids[:, None] == boxes.class_ids[None]
    for row in range(len(fused)):
        source = int(np.where(same[row], overlap[row], -1).argmax())
        rivals = same[row] & (overlap[row] > 0.3) & (boxes.scores > boxes.scores[source])
        # a rival may itself have been lowered first, and then spares this one
        assert fused.scores[row] <= boxes.scores[source]
        if not rivals.any():
            assert fused.scores[row] == boxes.scores[source]


def test_soft_nms_by_hand() -> None:
    one = Boxes([[0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.8], [1, 1], 100, 100)
    other = Boxes([[0, 0, 10, 5]], [0.5], [2], 100, 100)
    fused = fuse({"one": one, "other": other}, FusionConfig("soft_nms", 0.4, quota=False))
    # half of the first box: its score is halved, and falls behind another class's
    assert fused.scores.tolist() == pytest.approx([0.9, 0.5, 0.4])
    assert fused.class_ids.tolist() == [1, 2, 1]
    assert len(fuse({"one": one, "other": other}, FusionConfig("soft_nms", 0.4))) == 1
