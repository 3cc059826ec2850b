"""Images made of several."""

from dataclasses import replace

import numpy as np
import torch

from box_store.boxes import Boxes
from student_train.config import AugmentConfig
from student_train.data.batch import Batch, BoxSets
from student_train.data.mixtures import mix, mixed
from student_train.data.mosaic import companions, compose
from student_train.models.targets import Targets

DEIM = AugmentConfig(
    squares=(64,), same_square=True, eval_square=64, mosaic=0.5, mixup=0.5, mixed_epochs=(4, 29)
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(*rows: tuple[float, float, float, float], of: tuple[int, int]) -> Boxes:
    n = len(rows)
    corners = np.array(rows, np.float32).reshape(n, 4)
    return Boxes(corners, np.full(n, 0.5, np.float32), np.arange(n), width=of[1], height=of[0])


def part(height: int, width: int, red: int, teacher: bool = True):
    """A grey image with a coloured rectangle, its box by ground truth, and perhaps by a teacher."""
    image = torch.full((3, height, width), 90, dtype=torch.uint8)
    image[0, 10:30, 8:24] = red
    mine = boxes((8, 10, 24, 30), of=(height, width))
    return image, [mine, mine if teacher else None]


def test_boxes_of_a_mosaic_lie_on_what_they_frame() -> None:
    parts = [part(40, 60, 200), part(60, 40, 210), part(50, 50, 220), part(64, 48, 230)]
    for seed in range(5):
        image, (truth, teacher) = compose(parts, 160, seeded(seed))
        assert image.shape == (3, 160, 160)
        assert truth is not None
        assert teacher is not None
        assert np.array_equal(truth.boxes_xyxy, teacher.boxes_xyxy)
        assert truth.class_ids.tolist() == [0, 0, 0, 0]
        for number, (x0, y0, x1, y1) in enumerate(truth.boxes_xyxy):
            cx, cy = round(float(x0 + x1) / 2), round(float(y0 + y1) / 2)
            if 2 <= cx < 158 and 2 <= cy < 158:
                assert abs(int(image[0, cy, cx]) - (200 + 10 * number)) <= 2


def test_a_teacher_that_missed_one_part_does_not_know_the_mosaic() -> None:
    parts = [part(40, 60, 200, teacher=number != 2) for number in range(4)]
    _, (truth, teacher) = compose(parts, 128, seeded())
    assert truth is not None
    assert len(truth) == 4
    assert teacher is None


def test_mosaics_come_by_probability_in_their_epochs_only() -> None:
    def found(config: AugmentConfig, epoch: int) -> int:
        return sum(bool(companions(config, 9, epoch, seeded(seed))) for seed in range(200))

    assert found(DEIM, 3) == found(DEIM, 29) == 0
    assert 70 < found(DEIM, 4) < 130
    assert found(replace(DEIM, mosaic=1.0, mixed_epochs=None), 0) == 200
    others = companions(replace(DEIM, mosaic=1.0), 9, 5, seeded())
    assert len(others) == 3
    assert set(others) <= set(range(9))


def batch(values: list[int], sizes: list[tuple[int, int]] | None = None) -> Batch:
    n = len(values)
    images = torch.stack([torch.full((3, 8, 8), v, dtype=torch.uint8) for v in values])
    own = [
        Targets(torch.tensor([i]), torch.full((1, 4), 0.1 * (i + 1)), torch.ones(1))
        for i in range(n)
    ]
    seen: list[Targets | None] = [*own[:-1], None]
    return Batch(
        images,
        torch.tensor(sizes or [(8, 8)] * n),
        BoxSets.pack(own, {"t": seen}),
        list(range(n)),
        torch.tensor([(8, 8)] * n),
    )


def test_a_mixture_has_the_boxes_of_both() -> None:
    made = mix(batch([100, 200, 40]), 0.5)
    assert made.images[:, 0, 0, 0].tolist() == [70, 150, 120]
    assert [each.labels.tolist() for each in made.truth] == [[0, 2], [1, 0], [2, 1]]
    # the third image is unknown to the teacher, and so are the two that it is part of
    known = [None if each is None else each.labels.tolist() for each in made.teachers["t"]]
    assert known == [None, [1, 0], None]


def test_images_of_other_sizes_are_not_mixed() -> None:
    plain = batch([100, 200], sizes=[(8, 8), (6, 8)])
    assert mix(plain, 0.5) is plain


def test_the_same_batches_are_mixtures_wherever_an_epoch_is_begun() -> None:
    def is_mixed(first: int) -> list[bool]:
        given = iter([batch([100, 200])] * (20 - first))
        made = mixed(given, DEIM, seed=3, epoch=4, first=first)
        return [int(each.images[0, 0, 0, 0]) != 100 for each in made]

    assert 4 < sum(is_mixed(0)) < 16
    assert is_mixed(7) == is_mixed(0)[7:]
    assert not any(
        int(each.images[0, 0, 0, 0]) != 100
        for each in mixed(iter([batch([100, 200])] * 9), DEIM, seed=3, epoch=29, first=0)
    )
