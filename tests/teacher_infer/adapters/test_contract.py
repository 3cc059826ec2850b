"""What every teacher promises, whatever framework is behind it."""

from collections.abc import Callable

import numpy as np
import pytest

from box_store.boxes import Boxes
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Teacher
from teacher_infer.adapters.registry import adapter_names
from teacher_infer.teachers.loaded import load_teacher, weights_files

Pictures = dict[str, np.ndarray]
MakeSpec = Callable[..., AdapterSpec]

FAST = ["onnx-free", "onnx-one", "onnx-three"]
SLOW = [
    "mmdet-one-stage",
    "mmdet-two-stage",
    "mmdet-detr",
    "ultralytics",
    "torchvision-two-stage",
    "torchvision-ssd",
    "transformers",
    "student",
]
CASES = FAST + [pytest.param(case, marks=pytest.mark.slow) for case in SLOW]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def teacher(case: str, make_spec: MakeSpec) -> Teacher:
    return load_teacher(make_spec(case))


@pytest.fixture(scope="module")
def found(teacher: Teacher, pictures: Pictures) -> dict[str, Boxes]:
    """What the teacher finds in every picture, all given at once."""
    return dict(zip(pictures, teacher.predict(list(pictures.values())), strict=True))


def same(a: Boxes, b: Boxes) -> bool:
    """Equal up to rounding: random models rank many boxes almost alike, so order is left aside."""
    if abs(len(a) - len(b)) > 2:
        return False
    matched = 0
    for box, score, class_id in zip(a.boxes_xyxy, a.scores, a.class_ids, strict=True):
        near = np.abs(b.boxes_xyxy - box).max(axis=1, initial=0) < 0.05 * max(a.width, a.height)
        matched += bool((near & (b.class_ids == class_id) & (abs(b.scores - score) < 1e-3)).any())
    return matched >= 0.95 * len(a)


def test_every_adapter_is_under_contract() -> None:
    assert {name.split("-")[0] for name in FAST + SLOW} == set(adapter_names())


def test_it_says_what_it_is(teacher: Teacher) -> None:
    assert len(teacher.class_names) > 0
    assert all(isinstance(name, str) for name in teacher.class_names)
    assert teacher.licence
    assert all(teacher.versions.values())
    assert teacher.versions


def test_boxes_lie_in_the_image_best_first_above_the_floor(
    case: str, make_spec: MakeSpec, teacher: Teacher, found: dict[str, Boxes], pictures: Pictures
) -> None:
    floor = make_spec(case).score_floor
    assert sum(len(boxes) for boxes in found.values()) > 0, "a test without boxes shows nothing"
    for name, boxes in found.items():
        height, width = pictures[name].shape[:2]
        assert (boxes.width, boxes.height) == (width, height)
        assert len(boxes) <= 100
        assert (boxes.scores >= np.float32(floor)).all()
        assert (np.diff(boxes.scores) <= 0).all()
        assert (boxes.boxes_xyxy >= 0).all()
        assert (boxes.boxes_xyxy <= [width, height, width, height]).all()
        assert (boxes.boxes_xyxy[:, 2:] > boxes.boxes_xyxy[:, :2]).all()
        assert ((boxes.class_ids >= 0) & (boxes.class_ids < len(teacher.class_names))).all()


def test_a_picture_gives_the_same_boxes_alone_and_in_any_company(
    teacher: Teacher, found: dict[str, Boxes], pictures: Pictures
) -> None:
    for name, picture in pictures.items():
        assert same(teacher.predict([picture])[0], found[name]), name


def test_the_same_picture_twice_gives_the_same_boxes_twice(
    teacher: Teacher, pictures: Pictures
) -> None:
    assert teacher.predict([pictures["odd"]]) == teacher.predict([pictures["odd"]])


def test_loading_again_gives_the_same_teacher(
    case: str, make_spec: MakeSpec, found: dict[str, Boxes], pictures: Pictures
) -> None:
    """Several workers load one teacher; a resumed run loads it again."""
    again = load_teacher(make_spec(case))
    assert same(again.predict([pictures["first"]])[0], found["first"])


def test_top_k_keeps_the_best(
    case: str, make_spec: MakeSpec, found: dict[str, Boxes], pictures: Pictures
) -> None:
    few = load_teacher(make_spec(case, top_k=2)).predict([pictures["second"]])[0]
    assert len(few) == min(2, len(found["second"]))
    assert np.allclose(few.scores, found["second"].scores[:2], atol=1e-3)


def test_no_images_no_boxes(teacher: Teacher) -> None:
    assert teacher.predict([]) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.float32),
    ],
    ids=["grey", "alpha", "empty", "float"],
)
def test_anything_but_rgb_bytes_is_refused(teacher: Teacher, image: np.ndarray) -> None:
    with pytest.raises(AdapterError, match="expected a non-empty H x W x 3 array of uint8"):
        teacher.predict([image])


def test_its_files_can_be_named_without_loading_it(case: str, make_spec: MakeSpec) -> None:
    files = weights_files(make_spec(case))
    assert all(path.is_file() for path in files)
    # random weights in a builder without config file are the only teacher without any
    assert files or case.startswith("torchvision")


def test_the_licence_can_be_said(case: str, make_spec: MakeSpec) -> None:
    spec = make_spec(case, options={"licence": "CC-BY-4.0"})
    assert load_teacher(spec).licence == "CC-BY-4.0"
