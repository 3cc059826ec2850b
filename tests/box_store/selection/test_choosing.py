"""How much of a teacher is taken: found again on teachers whose flaws are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.boxes import Boxes
from box_store.calibration.judging import judge, judge_each
from box_store.coco.annotations import load_coco
from box_store.selection.choosing import CHOICES, Choice, choose
from box_store.selection.rows import Rule

GIVEN = Rule(score_floor=0.05, top_k=100, nms_iou=0.5, temperature=1.0, calibrated=False)
N_IMAGES = 40
SIDE = 60


class World:
    """Forty images with four objects each, and a teacher that is made of them."""

    def __init__(self, maker: Any) -> None:
        self.maker = maker
        self.images = maker.images(N_IMAGES)
        rng = np.random.default_rng(5)
        self.objects = {}
        for image in self.images:
            # in cells of a grid: objects do not overlap
            cells = rng.permutation(30)[:4]
            corners = np.stack([cells % 6 * 100, cells // 6 * 90], 1) + rng.uniform(0, 20, (4, 2))
            boxes = np.concatenate([corners, corners + SIDE], 1).astype(np.float32)
            self.objects[image.id] = boxes, rng.choice([1, 2], 4)
        self.store = maker.store()

    def annotations(self, missing: float = 0.0, only: int | None = None) -> Any:
        rows = []
        rng = np.random.default_rng(3)
        for image_id, (boxes, ids) in self.objects.items():
            for (x1, y1, x2, y2), category in zip(boxes.tolist(), ids.tolist(), strict=True):
                if rng.random() >= missing and only in (None, category):
                    row = {"image_id": image_id, "category_id": category}
                    rows.append({**row, "bbox": [x1, y1, x2 - x1, y2 - y1]})
        return load_coco(self.maker.annotations(N_IMAGES, rows))

    def teacher(self, name: str, see: Callable[..., Boxes], **other: Any) -> str:
        rows = {}
        for image in self.images:
            boxes, ids = self.objects[image.id]
            seen = see(np.random.default_rng(image.id), boxes, ids, image)
            rows[image.id] = self.maker.row(image, seen)
        mapped = {"class_map": {"person": 1, "bicycle": 2}}
        record = self.maker.record(name, n_images=N_IMAGES, unit_size=20, **(mapped | other))
        self.maker.fill(self.store, record, rows)
        return name

    def choose(self, name: str, rule: Rule = GIVEN, coco: Any = None, **other: Any) -> Choice:
        return choose(self.store, name, coco or self.annotations(), rule, **other)


def verbose(rng: np.random.Generator, boxes: Any, ids: Any, image: Any) -> Boxes:
    """Every object at 0.8, five times with small shifts below, and ten wild boxes below 0.3."""
    repeats = np.repeat(boxes, 5, 0) + rng.uniform(-6, 6, (20, 1)).astype(np.float32)
    corners = rng.uniform(0, 400, (10, 2)).astype(np.float32)
    wild = np.concatenate([corners, corners + SIDE], 1)
    scores = np.concatenate(
        [rng.uniform(0.75, 0.9, 4), rng.uniform(0.4, 0.7, 20), rng.uniform(0.06, 0.3, 10)]
    )
    every = np.concatenate([boxes, np.clip(repeats, 0, None), wild])
    classes = np.concatenate([ids, np.repeat(ids, 5), rng.choice([1, 2], 10)])
    return boxes_of(every, scores, classes, image)


def boxes_of(corners: Any, scores: Any, classes: Any, image: Any) -> Boxes:
    return Boxes(corners, scores, classes, image.width, image.height).sorted()


def exact(rng: np.random.Generator, boxes: Any, ids: Any, image: Any) -> Boxes:
    return boxes_of(boxes, rng.uniform(0.3, 1, len(ids)), ids, image)


@pytest.fixture
def world(maker: Any) -> World:
    return World(maker)


def test_wild_boxes_and_repeats_are_cut_off(world: World) -> None:
    found = world.choose(world.teacher("verbose", verbose), replace(GIVEN, nms_iou=None))
    assert found.verdict == "chosen"
    assert found.before is not None
    assert found.after is not None
    assert (found.before.boxes, found.annotated) == (34, 4)
    assert found.repeats > 0.5
    assert found.rule.nms_iou is not None
    assert found.rule.score_floor > 0.3
    assert found.after.right > 0.9
    assert found.after.found > 0.95
    assert found.before is not None
    assert found.before.boxes == 34
    assert (found.given, found.best) == (replace(GIVEN, nms_iou=None), found.rule)


def test_missing_annotations_do_not_move_the_choice(world: World) -> None:
    world.teacher("verbose", verbose)
    complete = world.choose("verbose")
    holed = world.choose("verbose", coco=world.annotations(missing=0.5))
    assert holed.rule.nms_iou == complete.rule.nms_iou
    assert holed.rule.score_floor == pytest.approx(complete.rule.score_floor, abs=0.05)
    assert holed.after is not None
    # half of the right boxes look wrong, and nobody is left out for it
    assert holed.after.right < 0.6
    assert holed.is_taken


def test_the_same_input_gives_the_same_choice(world: World) -> None:
    world.teacher("verbose", verbose)
    assert world.choose("verbose", max_images=15) == world.choose("verbose", max_images=15)


def test_a_good_teacher_is_left_as_it_is(world: World) -> None:
    found = world.choose(world.teacher("exact", exact))
    assert (found.verdict, found.rule, found.chosen) == ("as it is", GIVEN, ())


def test_what_is_given_stays(world: World) -> None:
    world.teacher("verbose", verbose)
    rule = replace(GIVEN, score_floor=0.123)
    found = world.choose("verbose", rule, free=[k for k in CHOICES if k != "score_floor"])
    assert found.rule.score_floor == 0.123
    assert world.choose("verbose", rule, free=()).rule == rule


def shifted_ids(world: World, name: str) -> str:
    ids = [image.id for image in world.images]
    following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))

    def see(rng: Any, boxes: Any, classes: Any, image: Any) -> Boxes:
        boxes, ids = world.objects[following[image.id]]
        return exact(rng, boxes, ids, image)

    return world.teacher(name, see)


def swapped_classes(world: World, name: str) -> str:
    return world.teacher(name, lambda rng, boxes, ids, image: exact(rng, boxes, 3 - ids, image))


@pytest.mark.parametrize("spoil", [shifted_ids, swapped_classes])
@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_boxes_that_have_nothing_to_do_with_the_labels_are_left_out(
    world: World, spoil: Callable[[World, str], str], missing: float
) -> None:
    name, coco = spoil(world, "spoilt"), world.annotations(missing)
    found = world.choose(name, coco=coco)
    assert found.verdict == "left out"
    assert not found.is_taken
    assert "wrong image ids or class map" in found.reason
    assert world.choose(name, coco=coco, keep=True).is_taken


def test_a_teacher_is_judged_by_the_classes_that_it_knows(world: World) -> None:
    def see(rng: Any, boxes: Any, ids: Any, image: Any) -> Boxes:
        return exact(rng, boxes[ids == 2], ids[ids == 2], image)

    found = world.choose(world.teacher("half", see, class_map={"bicycle": 2}))
    assert (found.verdict, found.classes) == ("as it is", (2,))
    assert found.after is not None
    assert found.after.agreement == 1


def test_no_boxes_no_labels_and_few_labels_are_said(world: World) -> None:
    none = world.teacher("blind", lambda rng, boxes, ids, image: Boxes.empty(640, 480))
    assert world.choose(none).reason == "it has no box in the 40 images looked at"
    world.teacher("exact", exact)
    unlabelled = world.choose("exact", coco=world.annotations(missing=1.0))
    assert unlabelled.verdict == "not judged"
    assert unlabelled.rule == GIVEN
    assert "0 annotated objects of its classes in the 40 images" in unlabelled.reason
    assert world.choose("exact", max_images=1).verdict == "not judged"


def test_a_teacher_of_other_images_is_not_judged(world: World, tmp_path: Path) -> None:
    world.teacher("exact", exact)
    other = world.maker.json_file(
        "other.json",
        {
            "images": [{"id": 1, "file_name": "1.jpg", "width": 640, "height": 480}],
            "categories": world.maker.categories.to_json(),
            "annotations": [],
        },
    )
    found = world.choose("exact", coco=load_coco(other))
    assert found.verdict == "not judged"
    assert "saw no image of" in found.reason


def test_suppression_comes_before_judgement(world: World) -> None:
    world.teacher("verbose", verbose)
    coco = world.annotations()
    everything, halved = judge_each(world.store, "verbose", coco, (None, 0.5))
    assert len(halved.scores) < len(everything.scores)
    # a right box is right whether or not its repeats are there
    assert halved.hits.sum() == everything.hits.sum()
    alone = judge(world.store, "verbose", coco, nms_iou=0.5)
    np.testing.assert_array_equal(alone.scores, halved.scores)
    np.testing.assert_array_equal(alone.hits, halved.hits)


def test_chance_is_what_annotations_of_other_images_give(world: World) -> None:
    world.teacher("exact", exact)
    coco = world.annotations()
    (by_chance,) = judge_each(world.store, "exact", coco, (None,), elsewhere=True)
    (right,) = judge_each(world.store, "exact", coco, (None,))
    assert right.hits.all()
    assert by_chance.hits.mean() < 0.2
