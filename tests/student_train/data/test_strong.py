"""RT-DETR's strong augmentation."""

import pytest
import torch

from box_store.coco.annotations import CocoData
from box_store.selection.selecting import Selection
from student_train.config import AugmentConfig
from student_train.data.batch import Sample
from student_train.data.coco import CocoDetection
from student_train.data.order import Key
from student_train.data.strong import strengthen
from student_train.data.transforms import Scene, TrainTransform

ALL = AugmentConfig(photometric=1.0, zoom_out=1.0, iou_crop=1.0)


def scene() -> Scene:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 60, 80), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[5.0, 5, 30, 40], [40, 10, 70, 50], [0, 0, 79, 59]])
    return Scene.start(image, boxes)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    strengthen(scene().image, scene().boxes_xyxy, ALL, seeded(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_numbers_come_from_the_images_generator_alone() -> None:
    found = [strengthen(scene().image, scene().boxes_xyxy, ALL, seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[2][0].shape != found[0][0].shape or not torch.equal(found[2][0], found[0][0])


def test_probability_zero_changes_nothing() -> None:
    image, boxes = strengthen(scene().image, scene().boxes_xyxy, AugmentConfig(), seeded(1))
    assert torch.equal(image, scene().image)
    assert torch.equal(boxes, scene().boxes_xyxy)


def test_zooming_out_moves_boxes_with_their_pixels_and_fills_with_black() -> None:
    zoom = AugmentConfig(zoom_out=1.0)
    white = torch.full((3, 20, 30), 255, dtype=torch.uint8)
    image, boxes = strengthen(white, torch.tensor([[0.0, 0, 30, 20]]), zoom, seeded(3))
    left, top, right, bottom = boxes[0].long().tolist()
    assert (right - left, bottom - top) == (30, 20)
    assert image.shape[1] > 20
    assert (image[:, top:bottom, left:right] == 255).all()
    assert image.float().sum() == 255 * 3 * 20 * 30


def test_a_crop_keeps_some_box_and_rows_stay_with_their_boxes() -> None:
    transform = TrainTransform(
        AugmentConfig(iou_crop=1.0, flip=0.0, crop=0.0, squares=(64,), same_square=True)
    )
    kept = set()
    for seed in range(30):
        found = transform(scene(), seeded(seed), seeded(0))
        assert found.size == (64, 64)
        assert 1 <= len(found.rows) <= 3
        assert len(found.rows) == len(found.boxes_xyxy)
        kept.add(tuple(found.rows.tolist()))
    # some crops leave some boxes out
    assert len(kept) > 1


def test_a_scene_without_boxes_passes() -> None:
    image, boxes = strengthen(scene().image, torch.zeros(0, 4), ALL, seeded(1))
    assert boxes.shape == (0, 4)
    assert image.shape[0] == 3


def test_it_stops_after_its_epochs_and_squares_with_it() -> None:
    config = AugmentConfig(
        photometric=1.0, zoom_out=1.0, iou_crop=1.0, flip=0.0, crop=0.0,
        strong_epochs=2, squares=(32, 96), eval_square=64,
    )  # fmt: skip
    transform = TrainTransform(config)
    sides = [
        {transform(scene(), seeded(s), None, epoch).size for s in range(8)} for epoch in (1, 2)
    ]
    assert sides == [{(32, 32), (96, 96)}, {(64, 64)}]
    weak = TrainTransform(AugmentConfig(flip=0.0, crop=0.0, squares=(64,)))
    late = transform(scene(), seeded(1), None, 2)
    assert torch.equal(late.image, weak(scene(), seeded(1)).image)


@pytest.mark.parametrize("seed", range(5))
def test_images_stay_bytes_of_three_colours(seed: int) -> None:
    image, boxes = strengthen(scene().image, scene().boxes_xyxy, ALL, seeded(seed))
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    assert len(boxes) == 3


def test_a_crop_looks_at_a_teachers_boxes_as_at_labels(folder, make_selection) -> None:
    boxes = [(5.0, 5.0, 30.0, 30.0), (38.0, 10.0, 55.0, 35.0)]
    labelled = folder.add("labelled.png", (60, 40), [(x, y, r - x, b - y) for x, y, r, b in boxes])
    found = {labelled: ((60, 40), [(*box, 0.3, 3) for box in boxes])}
    config = AugmentConfig(iou_crop=1.0, flip=0.0, crop=0.0, squares=(64,), same_square=True)

    def samples(coco: CocoData, selection: Selection | None) -> list[Sample]:
        dataset = CocoDetection(
            folder.root, coco, folder.space(), TrainTransform(config), selection=selection, seed=1
        )
        return [dataset[Key(0, epoch)].sample for epoch in range(12)]

    by_labels = samples(folder.coco, None)
    folder.annotations.clear()
    by_teacher = samples(folder.coco, make_selection(sharp=found))
    cropped = 0
    for mine, other in zip(by_labels, by_teacher, strict=True):
        assert torch.equal(mine.image, other.image)
        assert len(other.truth) == 0
        seen = other.teachers["sharp"]
        assert seen is not None
        assert torch.equal(seen.boxes, mine.truth.boxes)
        assert len(seen) >= 1
        cropped += len(seen) < len(boxes)
    assert cropped
