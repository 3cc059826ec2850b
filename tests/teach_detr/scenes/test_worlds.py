"""Worlds of scenes: the demo's never changes; the crowd is harder in the ways it says."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from box_store.errors import UsageError
from teach_detr.scenes.clutter import TORN_PART, tear
from teach_detr.scenes.painting import Painter, Scene, _Table
from teach_detr.scenes.sprites import TOYS
from teach_detr.scenes.worlds import WORLDS


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(["day"], 3, "crowd")


@pytest.fixture(scope="module")
def crowd(painter: Painter) -> list[Scene]:
    return [painter.paint(np.random.default_rng([3, i])) for i in range(100)]


def digest(scenes: list[Scene]) -> str:
    found = hashlib.sha256()
    for scene in scenes:
        found.update(scene.pixels.tobytes())
        found.update(scene.toys.astype("<i8").tobytes())
        found.update(scene.boxes_xyxy.astype("<i8").tobytes())
        found.update(str(scene.pixels.shape).encode())
    return found.hexdigest()


@pytest.mark.parametrize(
    ("styles", "expected"),
    [
        (["day"], "df4b864444fa1cbe000f2df519e02991f47d3629a3f65a3ca8dc56d918c5a4be"),
        (["dusk", "reef"], "a5a7877b82dc4c44c86a99647ff7bf6fbe327a700523ef7513eeb74bdc7b2e0a"),
    ],
)
def test_the_scenes_of_the_demo_are_what_its_weights_were_trained_on(
    styles: list[str], expected: str
) -> None:
    """Hashes from before there was a second world."""
    painter = Painter(styles, 5)
    assert digest([painter.paint(np.random.default_rng([5, 2, i])) for i in range(6)]) == expected


def test_a_crowd_is_decided_by_its_seed(crowd: list[Scene]) -> None:
    again = Painter(["day"], 3, "crowd")
    assert digest([again.paint(np.random.default_rng([3, 7]))]) == digest(crowd[7:8])
    assert digest(crowd[:1]) != digest(crowd[1:2])


def test_a_crowd_has_every_class_and_smaller_toys_in_smaller_pictures(crowd: list[Scene]) -> None:
    world = WORLDS["crowd"]
    toys = np.concatenate([scene.toys for scene in crowd])
    share = np.bincount(toys, minlength=len(world.toys)) / len(toys)
    assert len(world.toys) == 12
    assert share.min() > 0.04
    assert world.toys[:8] == TOYS
    assert [c["id"] for c in world.categories] == list(range(1, 13))
    assert {side for scene in crowd for side in scene.pixels.shape[:2]} == set(world.sides_px)
    sides = np.concatenate([scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2] for scene in crowd])
    assert (sides > 0).all()
    assert 0.3 < np.mean(sides.prod(1) < 32**2) < 0.7
    counts = [len(scene.toys) for scene in crowd]
    assert max(counts) == 9
    assert np.mean(counts) > 4


def test_a_wide_scene_is_large_and_its_toys_are_small() -> None:
    scene = Painter(["day"], 3, "wide").paint(np.random.default_rng(3))
    assert scene.pixels.shape == (4000, 4000, 3)
    assert 40 <= len(scene.toys) <= 80
    long_side = (scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2]).max(1)
    assert 10 < long_side.min() < long_side.max() < 28
    # a texture lies side by side with itself: no part of the ground is bare
    assert (scene.pixels[::97, ::89].std((0, 1)) > 1).all()


def block(width: int, height: int) -> Image.Image:
    """A sprite that is opaque all over."""
    return Image.new("RGBA", (width, height), (200, 30, 30, 255))


def test_boxes_are_the_extent_of_what_shows() -> None:
    table = _Table(np.full((40, 60, 3), 200, np.float32))
    table.put(block(20, 10), 5, 7, 3)
    # cut by the left border
    table.put(block(20, 10), -8, 25, 1)
    assert table.toys == [3, 1]
    assert table.boxes.tolist() == [[5, 7, 25, 17], [0, 25, 12, 35]]
    # clutter takes the right of the first, and is nothing itself
    table.put(block(8, 30), 17, 0, None)
    assert table.toys == [3, 1]
    assert table.boxes.tolist()[0] == [5, 7, 17, 17]


def test_nothing_hides_a_toy_that_is_labelled() -> None:
    table = _Table(np.full((40, 60, 3), 200, np.float32))
    table.put(block(20, 10), 5, 7, 3)
    before = table.pixels.copy()
    table.put(block(20, 10), 9, 7, None)
    table.put(block(20, 10), 9, 7, 2)
    table.put(block(20, 10), 52, 20, 2)
    assert table.toys == [3]
    assert np.array_equal(table.pixels, before)


def test_clutter_is_in_the_picture_and_not_in_the_labels(painter: Painter) -> None:
    """Coloured things lie outside of all boxes, in many scenes, and no label names clutter."""
    kit = painter._kits[0]
    textured, kit.grounds = kit.grounds, [np.full((512, 512, 3), 200, np.float32)]
    try:
        scenes = [painter.paint(np.random.default_rng([4, i])) for i in range(30)]
    finally:
        kit.grounds = textured
    outside = []
    for scene in scenes:
        pixels = scene.pixels.astype(int)
        coloured = pixels.max(2) - pixels.min(2) > 60
        for x0, y0, x1, y1 in scene.boxes_xyxy:
            coloured[y0:y1, x0:x1] = False
        outside.append(coloured.sum())
        assert set(scene.toys) <= set(range(12))
    assert np.mean(np.array(outside) > 30) > 0.6


def test_a_torn_piece_is_less_than_half_of_a_toy(painter: Painter) -> None:
    def opaque(sprite) -> int:
        return int((np.asarray(sprite.getchannel("A")) > 127).sum())

    for i in range(24):
        rng = np.random.default_rng(i)
        sprite = painter._kits[0].toys.take(i % 12, 60, rng)
        piece = tear(sprite, rng)
        assert piece.size == sprite.size
        assert 0.05 < opaque(piece) / opaque(sprite) <= TORN_PART[1] + 0.02


def test_an_unknown_world_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown world.*'crowt'.*Did you mean 'crowd'"):
        Painter(["day"], 0, "crowt")
