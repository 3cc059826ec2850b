"""Score floors of single classes: written, proposed from annotations, kept by a selection."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from box_store.calibration.judging import Judged
from box_store.coco.annotations import CocoData, coco_of
from box_store.errors import UsageError
from box_store.selection.floors import Floor, parse_floors, propose, write_floors
from box_store.selection.rows import Rule, above_floors
from box_store.selection.selecting import SelectionSpec, TeacherFilter
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT
from student_train.settings.overrides import Layer, flatten, merge, read_toml
from student_train.training.teachers import selection_spec


def truth(n: int) -> CocoData:
    """n cats, two dogs and a crowd of cats in one image."""
    rows = [{"image_id": 1, "category_id": 1, "bbox": [k, 0, 10, 10]} for k in range(n)]
    rows += [{"image_id": 1, "category_id": 2, "bbox": [k, 20, 10, 10]} for k in range(2)]
    rows.append({"image_id": 1, "category_id": 1, "bbox": [0, 40, 50, 50], "iscrowd": 1})
    return coco_of(
        {
            "images": [{"id": 1, "width": 200, "height": 100}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": rows,
        }
    )


def judged(scores: list[float], hits: list[int]) -> Judged:
    n = len(scores)
    return Judged(
        np.array([1]),
        np.zeros(n, np.int64),
        np.array(scores, np.float32),
        np.array(hits, bool),
        np.ones(n, np.int32),
    )


def test_the_best_f1_or_a_wanted_precision() -> None:
    # 12 cats; ten found among the 12 best boxes, then noise
    scores = [0.9] * 6 + [0.7] * 6 + [0.2] * 20
    hits = [1] * 6 + [1, 1, 1, 1, 0, 0] + [0] * 19 + [1]
    cats, dogs = propose(judged(scores, hits), truth(12))
    assert (cats.name, cats.objects, cats.floor) == ("cat", 12, pytest.approx(0.699, abs=1e-3))
    assert cats.precision == pytest.approx(10 / 12)
    assert cats.recall == pytest.approx(10 / 12)
    assert cats.f1 == pytest.approx(20 / 24)
    # a floor takes all boxes of a score that it takes one of
    assert cats.floor is not None
    assert (np.float32(0.7) >= cats.floor) & (np.float32(0.2) < cats.floor)
    # two objects say nothing
    assert dogs == Floor("dog", 2)
    (sure, _) = propose(judged(scores, hits), truth(12), precision=0.95)
    assert (sure.precision, sure.recall) == (1, pytest.approx(0.5))
    (never, _) = propose(judged([0.9] * 5, [0] * 5), truth(12), precision=0.5)
    assert never.floor is None


def test_a_class_has_its_own_floor() -> None:
    scores, ids = np.array([0.1, 0.3, 0.1, 0.3], np.float32), np.array([1, 1, 2, 2], np.int32)
    assert above_floors(scores, ids, 0.2, {}).tolist() == [False, True, False, True]
    assert above_floors(scores, ids, 0.2, {1: 0.35, 2: 0.05}).tolist() == [False, False, True, True]


def test_floors_of_a_teacher_come_before_those_of_all() -> None:
    spec = SelectionSpec(
        class_floors={"cat": 0.3, "dog": 0.1},
        per_teacher={"a": TeacherFilter(class_floors={"cat": 0.6})},
    )
    assert spec.rule("a").class_floors == (("cat", 0.6), ("dog", 0.1))
    assert spec.rule("b").class_floors == (("cat", 0.3), ("dog", 0.1))
    with pytest.raises(UsageError, match=r"class_floors\.cat of teacher a lies in 0\.\.1"):
        SelectionSpec(per_teacher={"a": TeacherFilter(class_floors={"cat": 1.6})})
    # a selection without them is called as it was before there were any
    assert "class_floors" not in Rule(0.1, 5, None, 1.0, False).identity()


@pytest.mark.parametrize("text", ["cat", "cat=", "=0.4", "cat=2", "cat=high"])
def test_what_is_no_floor_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=FLOOR"):
        parse_floors([text])
    assert parse_floors(["a=b=0.5"]) == {"a=b": 0.5}


def test_a_student_takes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "floors.toml"
    rows = [Floor("traffic light", 20, 0.25), Floor("dog", 3)]
    write_floors(path, {"yolo.x": rows, "none": [Floor("dog", 3)]}, "set,split=train")
    found = tomllib.loads(path.read_text())
    assert found == {"teachers": {"each": {"yolo.x": {"class_floors": {"traffic light": 0.25}}}}}
    preset = load_preset("dino-micro")
    config = merge(preset, [Layer(ARGUMENT, flatten(preset, read_toml(path)))]).config
    rule = selection_spec(config.teachers).rule("yolo.x")
    assert rule.class_floors == (("traffic light", 0.25),)
