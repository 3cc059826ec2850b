"""The small loops behind the shipped weights: crops, cell targets, a few steps, and resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch

from box_store import load_coco
from teach_detr.scenes.painting import make_split
from teach_detr.toy_teachers.backbone_training import (
    BackboneRecipe,
    DenseDetector,
    assign,
    train_backbone,
)
from teach_detr.toy_teachers.crops import Crop, CropSampler


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_split(folder, "train", 6, 1, ["day"])
    return folder


def test_crops_are_repeatable_and_their_boxes_lie_inside(scenes: Path) -> None:
    coco = load_coco(scenes / "annotations" / "instances_train.json")
    sampler = CropSampler(scenes / "train", coco, crop_px=96, zoom=(0.6, 1.1))
    for seed in range(10):
        first, again = (sampler.batch(3, np.random.default_rng(seed)) for _ in range(2))
        for crop, same in zip(first, again, strict=True):
            assert torch.equal(crop.pixels, same.pixels)
            assert torch.equal(crop.boxes_xyxy, same.boxes_xyxy)
            height, width = crop.pixels.shape[1:]
            assert max(height, width) <= 96
            assert (crop.boxes_xyxy >= 0).all()
            assert (crop.boxes_xyxy <= torch.tensor([width, height] * 2)).all()
            assert (crop.boxes_xyxy[:, 2:] > crop.boxes_xyxy[:, :2]).all()
            assert len(crop.labels) == len(crop.boxes_xyxy)


def test_the_whole_image_at_its_own_size_keeps_its_boxes(scenes: Path) -> None:
    coco = load_coco(scenes / "annotations" / "instances_train.json")
    sampler = CropSampler(scenes / "train", coco, crop_px=1000, zoom=(1.0, 1.0))
    truth = coco.annotations_of(coco.images[0].id).boxes_xyxy
    width = coco.images[0].width
    mirrored = truth[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    for seed in range(6):
        boxes = sampler.crop(0, np.random.default_rng(seed)).boxes_xyxy.numpy()
        assert np.allclose(boxes, truth) or np.allclose(boxes, mirrored)


def test_a_cell_belongs_to_the_smallest_object_whose_core_it_is_in() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40], [16, 16, 24, 24]])
    crop = Crop(torch.zeros(3, 40, 40, dtype=torch.uint8), boxes, torch.tensor([3, 5]))
    centres = torch.tensor([[20.0, 20], [12, 12], [2, 2]])
    label, box = assign(centres, crop, 0, 100)
    assert label.tolist() == [5, 3, -1]
    assert box[1].tolist() == [0, 0, 40, 40]
    # the range of sizes decides which objects this level is asked for
    assert assign(centres, crop, 10, 100)[0].tolist() == [3, 3, -1]


def test_training_resumed_equals_training_in_one_go(scenes: Path, tmp_path: Path) -> None:
    data = (scenes / "train", scenes / "annotations" / "instances_train.json")

    def recipe(steps: int) -> BackboneRecipe:
        return BackboneRecipe(
            "test_byobnet", steps=steps, batch_size=2, save_every=1, warmup_steps=1, crop_px=64
        )

    said: list[str] = []
    whole = train_backbone(*data, tmp_path / "a.pt", recipe(2), said.append)
    assert said
    assert "step 2/2" in said[-1]

    class StopError(Exception):
        pass

    def stop(text: str) -> None:
        raise StopError

    again = train_backbone(*data, tmp_path / "a.pt", recipe(2), stop)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    body = DenseDetector("test_byobnet", 8).body
    body.load_state_dict(whole)
