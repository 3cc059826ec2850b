"""Boxes stay on what they frame, whatever the augmentation does to the image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from student_train.config import AugmentConfig
from student_train.data.transforms import (
    EvalTransform,
    Scene,
    TrainTransform,
    random_crop,
    resized_size,
)

SMALL = AugmentConfig(
    short_sides=(32, 48, 64),
    long_side=96,
    crop_resize=(40, 60),
    crop_sides=(24, 48),
    eval_short_side=40,
    eval_long_side=60,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted(size: tuple[int, int], boxes: list[list[int]]) -> Scene:
    """A scene of (height, width) with box i filled in channel i; whole pixels."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        image[channel, y0:y1, x0:x1] = 255
    return Scene.start(image, torch.tensor(boxes, dtype=torch.float32).view(-1, 4))


def seen_box(channel: Tensor) -> list[float] | None:
    """Where an image's channel is more than half lit: x0, y0, x1, y1."""
    rows = (channel > 127).any(1).nonzero().flatten()
    columns = (channel > 127).any(0).nonzero().flatten()
    if not len(rows):
        return None
    return [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.lists(
        st.tuples(
            *[st.floats(0, 0.7), st.floats(0, 0.7), st.floats(0.2, 0.5), st.floats(0.2, 0.5)]
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_boxes_follow_the_pixels(
    seed: int, size: tuple[int, int], fractions: list[tuple[float, float, float, float]]
) -> None:
    height, width = size
    boxes = []
    for x, y, w, h in fractions:
        x0, y0 = int(x * width), int(y * height)
        x1, y1 = min(width, x0 + max(4, int(w * width))), min(height, y0 + max(4, int(h * height)))
        boxes.append([x0, y0, x1, y1])
    scene = TrainTransform(SMALL)(painted(size, boxes), generator(seed))
    full_height, full_width = scene.size
    assert scene.image.shape[0] == 3
    assert (scene.boxes_xyxy[:, :2] >= 0).all()
    assert (scene.boxes_xyxy[:, 2] <= full_width).all()
    assert (scene.boxes_xyxy[:, 3] <= full_height).all()
    assert (scene.boxes_xyxy[:, 2:] > scene.boxes_xyxy[:, :2]).all()
    # a pixel of the source is at most this large now; resampling blurs an edge by about that much
    blur = 1.5 + max(full_height / min(size), full_width / min(size)) * 0.75
    left = dict(zip(scene.rows.tolist(), scene.boxes_xyxy.tolist(), strict=True))
    for row in range(len(boxes)):
        seen = seen_box(scene.image[row])
        if row not in left:
            # cut away: nothing but a blurred rim may be seen of it
            assert seen is None or min(seen[2] - seen[0], seen[3] - seen[1]) <= blur
        elif seen is not None:
            for got, expected in zip(left[row], seen, strict=True):
                assert abs(got - expected) <= blur
        else:
            x0, y0, x1, y1 = left[row]
            assert min(x1 - x0, y1 - y0) <= blur


def test_flip_is_exact() -> None:
    config = AugmentConfig(flip=1, crop=0, short_sides=(20,), long_side=100)
    scene = TrainTransform(config)(painted((20, 30), [[2, 3, 9, 12]]), generator(0))
    assert scene.boxes_xyxy.tolist() == [[21, 3, 28, 12]]
    assert seen_box(scene.image[0]) == [21, 3, 28, 12]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((427, 640), (800, 1199)),
        ((300, 600), (666, 1332)),
        ((100, 2000), (67, 1340)),
        ((1, 1), (800, 800)),
        ((1, 5000), (1, 5000)),
    ],
)
def test_resized_size_is_detrs(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(size, 800, 1333) == expected


def test_eval_resizes_and_nothing_else() -> None:
    scene = painted((20, 30), [[3, 4, 12, 16]])
    moved = EvalTransform(SMALL)(scene, generator(0))
    assert moved.size == (40, 60)
    assert moved.boxes_xyxy.tolist() == [[6, 8, 24, 32]]


def test_crop_takes_a_window_of_the_released_sizes() -> None:
    # DETR: resize to 400, 500 or 600, then a window of 384..600 (at most the image)
    sides = set()
    for seed in range(60):
        cropped = random_crop(painted((500, 750), []), 384, 600, generator(seed))
        height, width = cropped.size
        assert 384 <= height <= 500
        assert 384 <= width <= 600
        sides.add(cropped.size)
    assert len(sides) > 40


def test_crop_drops_what_is_outside() -> None:
    scene = painted((40, 200), [[0, 0, 10, 10], [190, 30, 200, 40], [0, 0, 200, 40]])
    seen = set()
    for seed in range(20):
        cropped = random_crop(scene, 24, 48, generator(seed))
        assert 2 in cropped.rows
        seen |= {tuple(cropped.rows.tolist())}
        assert not {0, 1} <= set(cropped.rows.tolist())
    assert (2,) in seen


def test_crop_of_an_image_smaller_than_the_window() -> None:
    assert random_crop(painted((5, 7), []), 384, 600, generator(0)).size == (5, 7)


def test_start_cuts_boxes_and_drops_empty_ones() -> None:
    boxes = torch.tensor(
        [[-5.0, 2, 8, 50], [3, 3, 3, 9], [40, 1, 50, 2], [9, 9, 4, 4], [1, 1, 2, 2]]
    )
    scene = Scene.start(torch.zeros(3, 20, 30, dtype=torch.uint8), boxes)
    assert scene.rows.tolist() == [0, 4]
    assert scene.boxes_xyxy.tolist() == [[0, 2, 8, 20], [1, 1, 2, 2]]


def test_same_generator_same_scene() -> None:
    scene = painted((50, 70), [[5, 5, 40, 40]])
    state = torch.random.get_rng_state()
    results = [TrainTransform(SMALL)(scene, generator(seed)) for seed in (7, 7, *range(8, 20))]
    assert torch.equal(results[0].image, results[1].image)
    assert torch.equal(results[0].boxes_xyxy, results[1].boxes_xyxy)
    assert len({(*r.image.shape, r.image.sum().item()) for r in results}) > 5
    # nothing was drawn from the generator that training uses
    assert torch.equal(torch.random.get_rng_state(), state)


def test_extreme_shapes_survive() -> None:
    for size in ((1, 1), (1, 300), (300, 1), (2, 3)):
        scene = painted(size, [[0, 0, size[1], size[0]]])
        for seed in range(6):
            moved = TrainTransform(SMALL)(scene, generator(seed))
            assert min(moved.size) >= 1
            assert moved.rows.tolist() == [0]
