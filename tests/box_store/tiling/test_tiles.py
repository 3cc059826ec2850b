"""Tiles: they cover an image, share what was asked for, and lose and double nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store.boxes import Boxes
from box_store.errors import UsageError
from box_store.tiling.looking import predict_tiled, seen_through
from box_store.tiling.tiles import Tiling, Window

sides = st.integers(1, 700)


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(32, 300), st.floats(0, 0.9))
def test_tiles_cover_an_image_and_overlap_enough(
    width: int, height: int, side: int, overlap: float
) -> None:
    windows = Tiling(side, overlap).windows(width, height)
    covered = np.zeros((height, width), bool)
    for each in windows:
        assert (each.right - each.left, each.bottom - each.top) == (
            min(side, width),
            min(side, height),
        )
        covered[each.top : each.bottom, each.left : each.right] = True
    assert covered.all()
    lefts = sorted({each.left for each in windows})
    assert len(windows) == len(lefts) * len({each.top for each in windows})
    # no object as long as the overlap is cut by every tile
    assert all(b - a <= max(1, int(side * (1 - overlap))) for a, b in pairwise(lefts))
    # and no more of them than that takes
    assert len(lefts) <= 1 + max(0, -(-(width - side) // max(1, int(side * (1 - overlap)))))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((16, 0.2), "at least 32 pixels"),
        ((64, 0.95), "from 0 to 0.9, got 0.95"),
        ((64, -0.1), "from 0 to 0.9"),
    ],
)
def test_tiles_that_there_are_not_are_refused(values: tuple, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Tiling(*values)


def test_boxes_of_an_image_in_a_window_and_back() -> None:
    window = Window(100, 80, 20, 10, 60, 50)
    boxes = Boxes(
        np.array([[30, 20, 50, 40], [10, 20, 30, 40], [0, 0, 20, 80], [70, 20, 90, 40]]),
        np.array([0.9, 0.8, 0.7, 0.6]),
        np.array([4, 3, 2, 1]),
        100,
        80,
    )
    inside = window.from_image(boxes)
    assert (inside.width, inside.height) == (40, 40)
    # cut where the window ends; what has no area in it is gone
    assert inside.boxes_xyxy.tolist() == [[10, 10, 30, 30], [0, 10, 10, 30]]
    assert inside.class_ids.tolist() == [4, 3]
    back = window.to_image(inside)
    # the second may go on beyond the cut, and does
    assert back.boxes_xyxy.tolist() == [[30, 20, 50, 40]]
    assert back.scores.tolist() == pytest.approx([0.9])


def dots(image: np.ndarray) -> Boxes:
    """A detector that finds white squares of 4 px exactly, where the picture is no larger than 64
    px: it sees nothing in larger ones.
    """
    height, width = image.shape[:2]
    if max(height, width) > 64:
        return Boxes.empty(width, height)
    lit = image[..., 0] > 127
    corners = lit & ~np.roll(lit, 1, 0) & ~np.roll(lit, 1, 1)
    found = [
        [x, y, x + lit[y, x : x + 4].sum(), y + lit[y : y + 4, x].sum()]
        for y, x in np.argwhere(corners | (lit & (np.arange(height)[:, None] == 0)))
    ]
    boxes = np.reshape(np.array(found, np.float32), (-1, 4))
    return Boxes(boxes, np.full(len(boxes), 0.5, np.float32), np.zeros(len(boxes)), width, height)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 24), st.integers(0, 18)), max_size=12))
def test_every_small_object_is_found_once(places: set[tuple[int, int]]) -> None:
    image = np.zeros((160, 208, 3), np.uint8)
    for column, row in places:
        # apart from each other, and from the borders where this detector is wrong
        image[4 + 8 * row : 8 + 8 * row, 4 + 8 * column : 8 + 8 * column] = 255
    (found,) = predict_tiled(lambda shown: [*map(dots, shown)], [image], Tiling(64, 0.2))
    assert (found.width, found.height) == (208, 160)
    expected = sorted((4 + 8 * column, 4 + 8 * row) for column, row in places)
    assert sorted(map(tuple, found.boxes_xyxy[:, :2].astype(int).tolist())) == expected


def test_an_image_no_larger_than_a_tile_is_looked_at_once() -> None:
    shown: list[tuple[int, ...]] = []

    def predict(images: list[np.ndarray]) -> list[Boxes]:
        shown.extend(image.shape for image in images)
        return [Boxes.empty(image.shape[1], image.shape[0]) for image in images]

    images = [np.zeros((40, 64, 3), np.uint8), np.zeros((40, 100, 3), np.uint8)]
    predict_tiled(predict, images, Tiling(64, 0.25))
    assert sorted(shown) == [(40, 64, 3)] * 3 + [(40, 100, 3)]


def test_pictures_go_by_as_many_as_there_are_images() -> None:
    counts: list[int] = []

    def predict(images: list[np.ndarray]) -> list[Boxes]:
        counts.append(len(images))
        return [Boxes.empty(image.shape[1], image.shape[0]) for image in images]

    images = [np.zeros((64, width, 3), np.uint8) for width in (64, 192, 32)]
    looks = [Tiling(64, 0).windows(image.shape[1], 64) for image in images[:2]]
    found = seen_through(predict, images, [*looks, []], 0.5)
    assert counts == [3, 1]
    assert [None if each is None else each.width for each in found] == [64, 192, None]
