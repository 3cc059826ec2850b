"""Training on tiles: all box sets are cut as the image is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from box_store.boxes import Boxes
from student_train.config import AugmentConfig
from student_train.data.coco import CocoDetection, Key
from student_train.data.tiles import random_tile
from student_train.data.transforms import TrainTransform

# leaves a tile of 24 px as it is
STILL = AugmentConfig(tile=24, flip=0, crop=0, short_sides=(24,), long_side=24)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(*rows: tuple[float, float, float, float]) -> Boxes:
    corners = np.array(rows, np.float32).reshape(-1, 4)
    return Boxes(corners, np.linspace(1, 0.5, len(corners)), np.arange(len(corners)), 60, 40)


def test_boxes_lie_on_what_they_frame() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 12:30, 20:44] = 200
    truth, teacher = boxes((20, 12, 44, 30)), boxes((0, 0, 60, 40), (20, 12, 44, 30))
    places = set()
    for seed in range(40):
        tile, (of_truth, of_teacher, of_none) = random_tile(
            image, [truth, teacher, None], 24, seeded(seed)
        )
        assert tile.shape == (3, 24, 24)
        assert of_none is None
        assert of_truth is not None
        assert of_teacher is not None
        assert of_teacher.boxes_xyxy[0].tolist() == [0, 0, 24, 24]
        lit = np.argwhere(tile[0].numpy() > 0)
        if not len(lit):
            assert len(of_truth) == 0
            assert len(of_teacher) == 1
            continue
        (y0, x0), (y1, x1) = lit.min(0), lit.max(0) + 1
        assert of_truth.boxes_xyxy.tolist() == [[x0, y0, x1, y1]]
        assert of_teacher.boxes_xyxy[1].tolist() == [x0, y0, x1, y1]
        places.add((int(x0), int(y0)))
    assert len(places) > 10


@pytest.mark.parametrize("side", [40, 50, 60, 100])
def test_a_tile_is_no_longer_than_the_image(side: int) -> None:
    image = torch.arange(40 * 60, dtype=torch.int32).view(1, 40, 60).expand(3, -1, -1)
    tile, (found,) = random_tile(image, [boxes((0, 0, 60, 40))], side, seeded(0))
    assert tile.shape == (3, 40, min(side, 60))
    assert found is not None
    assert found.boxes_xyxy.tolist() == [[0, 0, min(side, 60), 40]]


def test_annotations_and_teachers_see_one_tile_which_the_key_decides(
    folder, make_selection
) -> None:
    for number in range(4):
        folder.add(f"{number}.png", boxes=[(6, 4, 12, 8), (30, 20, 25, 15)])
    rows = [(6, 4, 18, 12, 0.9, 3), (30, 20, 55, 35, 0.9, 3)]
    chosen = make_selection(t={100 + number: ((60, 40), rows) for number in range(4)})
    dataset = CocoDetection(
        folder.root,
        folder.coco,
        folder.space(),
        TrainTransform(STILL),
        selection=chosen,
        augment=STILL,
        seed=3,
    )
    seen = []
    for epoch in range(6):
        for index in range(4):
            sample = dataset[Key(index, epoch)].sample
            again = dataset[Key(index, epoch)].sample
            assert sample is not None
            assert again is not None
            assert torch.equal(sample.image, again.image)
            assert sample.image.shape == (3, 24, 24)
            assert sample.original_size == (40, 60)
            teacher = sample.teachers["t"]
            assert teacher is not None
            # one teacher agrees with the annotations, before the tile and after it
            torch.testing.assert_close(sample.truth.boxes, teacher.boxes)
            # a tile without a box is not one of an image without boxes
            assert sample.truth.had_boxes
            assert teacher.had_boxes
            seen.append(sample.truth.boxes)
    assert len({len(each) for each in seen}) > 1
    assert len({str(each.tolist()) for each in seen}) > 8


def test_a_mosaic_is_of_tiles(folder) -> None:
    for number in range(6):
        # a box beside the tiles would lie on another quarter of the mosaic
        folder.add(f"{number}.png", boxes=[(0, 0, 60, 40), (58, 38, 2, 2)])
    config = replace(STILL, mosaic=1.0, squares=(48,), eval_square=48)
    dataset = CocoDetection(
        folder.root, folder.coco, folder.space(), TrainTransform(config), augment=config
    )
    for index in range(6):
        sample = dataset[Key(index)].sample
        assert sample is not None
        assert sample.image.shape == (3, 48, 48)
        width = sample.truth.boxes[:, 2] * 48
        # a quarter is 24 px wide, and the whole is scaled by 1.5 and turned by 10 degrees at most
        assert (width <= 24 * 1.5 * 1.2 + 1e-3).all()


def test_a_tile_of_no_size_is_refused() -> None:
    assert any("augment.tile" in each for each in AugmentConfig(tile=8).problems())
    assert not list(AugmentConfig(tile=640).problems())
