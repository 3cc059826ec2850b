import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from box_store import boxes as boxes_module
from box_store.boxes import Boxes, nms_keep, pairwise_iou
from box_store.errors import DataError, UsageError

quick = settings(max_examples=30, deadline=None)


@st.composite
def some_boxes(draw: st.DrawFn, max_boxes: int = 20) -> Boxes:
    """Boxes anywhere around the image, inverted and empty ones among them."""
    n = draw(st.integers(0, max_boxes))
    corners = st.integers(-40, 120).map(lambda value: value / 2)
    return Boxes(
        draw(hnp.arrays(np.float32, (n, 4), elements=corners)),
        draw(hnp.arrays(np.float32, n, elements=st.integers(0, 8).map(lambda v: v / 8))),
        draw(hnp.arrays(np.int32, n, elements=st.integers(1, 3))),
        50,
        40,
    )


def test_inputs_become_float32_and_int32() -> None:
    boxes = Boxes([[0, 1, 2, 3]], [0.5], [7], 10, 10)  # type: ignore[arg-type]
    assert boxes.boxes_xyxy.dtype == boxes.scores.dtype == np.float32
    assert boxes.class_ids.dtype == np.int32
    assert len(boxes) == 1
    assert boxes.areas.tolist() == [4]


def test_nothing_found_is_a_box_set_too() -> None:
    for boxes in (Boxes.empty(5, 6), Boxes([], [], [], 5, 6)):  # type: ignore[arg-type]
        assert len(boxes) == 0
        assert boxes.boxes_xyxy.shape == (0, 4)
        assert len(boxes.clipped().nms(0.5).top_k(3).above(0.1)) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([[0, 0, 1, 1]], [0.5, 0.5], [1]), "do not fit together"),
        (([[0, 0, 1]], [0.5], [1]), "do not fit together"),
        (([[0, 0, np.nan, 1]], [0.5], [1]), "finite; row 0"),
        (([[0, 0, 1, 1]], [1.5], [1]), "row 0 has 1.5"),
        (([[0, 0, 1, 1]], [np.nan], [1]), "row 0 has nan"),
        (([[0, 0, 1, 1]], [0.5], [1.5]), "whole numbers"),
        (([[0, 0, 1, 1]], [0.5], [2**40]), "32 bits"),
    ],
)
def test_what_cannot_be_boxes_is_refused(values: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Boxes(*values, 10, 10)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 x 1"):
        Boxes.empty(0, 5)


def test_boxes_are_compared_by_content_and_not_hashable() -> None:
    one, two = (Boxes([[0, 0, 1, 1]], [0.5], [1], 9, 9) for _ in range(2))  # type: ignore[arg-type]
    assert one == two
    assert one != Boxes.empty(9, 9)
    assert one != "boxes"
    with pytest.raises(TypeError):
        hash(one)


def test_equal_scores_keep_their_order() -> None:
    boxes = Boxes(np.zeros((4, 4)), [0.5, 0.9, 0.5, 0.9], [1, 2, 3, 4], 9, 9)  # type: ignore[arg-type]
    assert boxes.sorted().class_ids.tolist() == [2, 4, 1, 3]
    assert boxes.top_k(3).class_ids.tolist() == [2, 4, 1]
    assert boxes.above(0.6).class_ids.tolist() == [2, 4]


def test_the_floor_itself_is_kept() -> None:
    assert len(Boxes([[0, 0, 1, 1]], [0.05], [1], 9, 9).above(0.05)) == 1  # type: ignore[arg-type]


@quick
@given(some_boxes())
def test_clipping_leaves_boxes_with_area_inside_the_image(boxes: Boxes) -> None:
    clipped = boxes.clipped()
    xyxy = clipped.boxes_xyxy
    assert (xyxy >= 0).all()
    assert (xyxy[:, [0, 2]] <= 50).all()
    assert (xyxy[:, [1, 3]] <= 40).all()
    assert (clipped.areas > 0).all()
    assert clipped.clipped() == clipped
    # a box inside the image is not touched
    inside = boxes.take(
        (boxes.boxes_xyxy[:, :2] >= 0).all(1)
        & (boxes.boxes_xyxy[:, 2] <= 50)
        & (boxes.boxes_xyxy[:, 3] <= 40)
        & (boxes.boxes_xyxy[:, 2:] > boxes.boxes_xyxy[:, :2]).all(1)
    )
    assert inside.clipped() == inside


@quick
@given(some_boxes(), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.booleans())
def test_nms_keeps_what_no_better_kept_box_overlaps(
    boxes: Boxes, iou: float, class_wise: bool
) -> None:
    ordered = boxes.clipped().sorted()
    kept: list[int] = []
    for row in range(len(ordered)):
        rivals = [
            k for k in kept if not class_wise or ordered.class_ids[k] == ordered.class_ids[row]
        ]
        overlap = pairwise_iou(ordered.boxes_xyxy[row : row + 1], ordered.boxes_xyxy[rivals])
        if not (overlap > iou).any():
            kept.append(row)
    assert boxes.clipped().nms(iou, class_wise) == ordered.take(kept)


@pytest.mark.slow
def test_nms_equals_torchvision() -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 80, (300, 2))
    boxes = Boxes(
        np.concatenate([corner, corner + rng.uniform(5, 40, (300, 2))], 1),
        rng.permutation(300) / 300,
        rng.integers(0, 4, 300),
        120,
        120,
    )
    keep = batched_nms(
        torch.tensor(boxes.boxes_xyxy),
        torch.tensor(boxes.scores),
        torch.tensor(boxes.class_ids),
        0.3,
    )
    assert boxes.nms(0.3) == boxes.take(keep.numpy())


def test_nms_does_not_depend_on_its_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (200, 2))
    xyxy = np.concatenate([corner, corner + 10], 1).astype(np.float32)
    whole = nms_keep(xyxy, None, 0.3)
    monkeypatch.setattr(boxes_module, "_NMS_PAIRS", 7)
    assert np.array_equal(nms_keep(xyxy, None, 0.3), whole)


@pytest.mark.parametrize("class_wise", [True, False])
@pytest.mark.parametrize("pairs", [5, 1 << 17])
def test_nms_of_many_images_is_that_of_each(
    class_wise: bool, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes_module, "_NMS_PAIRS", pairs)
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 40, (500, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(5, 20, (500, 2))], 1).astype(np.float32)
    # the rows of an image need not lie together
    images = rng.choice([3, 7, 11, 2], 500)
    ids = rng.integers(0, 3, 500).astype(np.int32) if class_wise else None
    kept = nms_keep(xyxy, ids, 0.3, images)
    one_by_one = [
        rows[nms_keep(xyxy[rows], None if ids is None else ids[rows], 0.3)]
        for rows in (np.flatnonzero(images == image) for image in np.unique(images))
    ]
    assert kept.tolist() == sorted(np.concatenate(one_by_one).tolist())
    assert len(kept) < 400


def test_nms_of_a_chain_keeps_every_other() -> None:
    low = np.arange(999, dtype=np.float32)
    xyxy = np.stack([low, low * 0, low + 1.9, low * 0 + 1], 1)
    assert nms_keep(xyxy, None, 0.1).tolist() == list(range(0, 999, 2))


def test_iou_of_boxes_without_area_is_zero() -> None:
    assert pairwise_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0]]


def test_unchecked_equals_checked() -> None:
    boxes = Boxes([[0, 0, 1, 1]], [0.5], [1], 9, 9)  # type: ignore[arg-type]
    assert Boxes.unchecked(boxes.boxes_xyxy, boxes.scores, boxes.class_ids, 9, 9) == boxes


def test_supervision_gets_the_same_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("supervision")
    module.Detections = lambda **values: values  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    found = Boxes([[0, 0, 1, 2]], [0.5], [3], 9, 9).to_supervision()  # type: ignore[arg-type]
    assert found["xyxy"].tolist() == [[0, 0, 1, 2]]
    assert found["class_id"].tolist() == [3]


def test_missing_supervision_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match=r"pip install 'teach-detr\[supervision\]'"):
        Boxes.empty(1, 1).to_supervision()
