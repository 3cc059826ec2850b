"""Photos decoded no larger than needed: boxes still lie on what they were drawn around."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from student_train.config import AugmentConfig
from student_train.data import CocoDetection, EvalTransform, TrainTransform
from student_train.data.coco import Sample
from student_train.data.transforms import Transform, resized_size

# x, y, width, height on a photo whose sides no divisor divides
SIZE, BOX = (1003, 701), (221.0, 303.0, 330.0, 211.0)


def scene(path: Path) -> None:
    """White in the box, black elsewhere."""
    image = Image.new("RGB", SIZE)
    x, y, w, h = BOX
    ImageDraw.Draw(image).rectangle((x, y, x + w - 1, y + h - 1), fill="white")
    image.save(path, quality=95)


@pytest.fixture
def load(folder, make_selection):
    """load(transform, suffix=".jpg", ...) -> the sample of a scene, which a teacher saw as well,
    decoded whole and decoded no larger than needed."""

    def made(transform: Transform, suffix: str = ".jpg", **options) -> tuple[Sample, Sample]:
        image_id = folder.add(f"a{suffix}", SIZE, [BOX], write=False)
        scene(folder.root / f"a{suffix}")
        x, y, w, h = BOX
        selection = make_selection(t={image_id: (SIZE, [(x, y, x + w, y + h, 0.5, 3)])})

        def sample(scaled: bool) -> Sample:
            dataset = CocoDetection(
                folder.root,
                folder.coco,
                folder.space(),
                transform,
                selection=selection,
                scaled_decode=scaled,
                **options,
            )
            found = dataset[0].sample
            assert found is not None
            return found

        return sample(False), sample(True)

    return made


def white(image: torch.Tensor) -> list[float]:
    """Centre and size of what is white, as parts of the image's sides."""
    inside = image.float().mean(0) > 127
    found = []
    for axis in (0, 1):
        at = torch.nonzero(inside.any(axis)).ravel()
        low, high = int(at[0]), int(at[-1]) + 1
        found.append(((low + high) / 2 / inside.shape[1 - axis], (high - low)))
    return [found[0][0], found[1][0], *(f[1] / inside.shape[1 - i] for i, f in enumerate(found))]


@pytest.mark.parametrize(
    "transform",
    [
        EvalTransform(AugmentConfig(eval_short_side=80, eval_long_side=133)),
        EvalTransform(AugmentConfig(eval_square=96)),
        TrainTransform(AugmentConfig(short_sides=(64, 96), long_side=200, crop=0)),
        TrainTransform(AugmentConfig(squares=(96,), crop=0)),
    ],
    ids=["eval", "eval-square", "train", "train-squares"],
)
def test_boxes_lie_where_they_lay(load, transform):
    whole, scaled = load(transform)
    height, width = whole.image.shape[-2:]
    # the frame that sides rounded up give may be a pixel narrower
    assert all(
        0 <= a - b <= 1 for a, b in zip((height, width), scaled.image.shape[-2:], strict=True)
    )
    pixel = 1 / min(scaled.image.shape[-2:])
    for sample in (whole, scaled):
        expected = torch.tensor(white(sample.image))
        for targets in (sample.truth, sample.teachers["t"]):
            assert targets is not None
            torch.testing.assert_close(targets.boxes[0], expected, atol=1.1 * pixel, rtol=0)
    torch.testing.assert_close(scaled.truth.boxes, whole.truth.boxes, atol=0.02, rtol=0)
    assert not torch.equal(scaled.image, whole.image)
    # of the frame that predictions are scaled to: whole multiples of the divisor
    assert whole.original_size == SIZE[::-1]
    for full, rounded in zip(SIZE[::-1], scaled.original_size, strict=True):
        assert full <= rounded < full + 8


def test_mosaics_of_divided_photos_keep_their_boxes(load):
    config = AugmentConfig(squares=(96,), crop=0, flip=0, mosaic=1.0)
    whole, scaled = load(TrainTransform(config), augment=config)
    assert len(whole.truth) == len(scaled.truth) > 0
    torch.testing.assert_close(scaled.truth.boxes, whole.truth.boxes, atol=0.02, rtol=0)


def test_other_files_come_whole(load):
    transform = EvalTransform(AugmentConfig(eval_short_side=80, eval_long_side=133))
    whole, scaled = load(transform, ".png")
    assert torch.equal(whole.image, scaled.image)
    assert scaled.original_size == SIZE[::-1]


def test_photos_that_are_needed_whole_come_whole(load):
    transform = EvalTransform(AugmentConfig(eval_short_side=640, eval_long_side=1333))
    whole, scaled = load(transform)
    assert torch.equal(whole.image, scaled.image)


@pytest.mark.parametrize("size", [(3000, 4000), (4032, 3024), (500, 2000)])
def test_no_scene_is_drawn_larger_than_what_is_needed(size):
    config = AugmentConfig(short_sides=(200, 256), long_side=400, crop_resize=(100, 300))
    height, width = TrainTransform(config).needs(size)
    for side in (*config.short_sides, *config.crop_resize):
        limit = config.long_side if side in config.short_sides else None
        assert np.all(np.array(resized_size(size, side, limit)) <= (height, width))
    # a third of each side may be all that a crop leaves
    cut = TrainTransform(AugmentConfig(squares=(64,), crop=0, iou_crop=0.8))
    assert cut.needs(size) == (214, 214)
    assert EvalTransform(AugmentConfig(eval_square=64)).needs(size) == (64, 64)
