"""From raw detections to stored boxes, and what a spec may say: `teacher_infer.teachers.loaded`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store.errors import UsageError
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections, Misread
from teacher_infer.adapters.registry import adapter_help, adapter_info
from teacher_infer.teachers.loaded import (
    LoadedTeacher,
    check_spec,
    finish,
    load_teacher,
    weights_files,
)

SPEC = AdapterSpec("onnx", "model.onnx")


def raw(boxes: list, scores: list, class_ids: list) -> Detections:
    return Detections(np.array(boxes), np.array(scores), np.array(class_ids))


class Fake:
    """A detector that returns what it was given, and counts."""

    class_names = ("a", "b")
    licence = "MIT"
    versions = {"fake": "1"}  # noqa: RUF012
    nms_iou = 0.5
    runtime: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, found: Detections | Exception) -> None:
        self.found = found
        self.batches: list[int] = []

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        self.batches.append(len(images))
        if isinstance(self.found, Exception):
            raise self.found
        return [self.found] * len(images)


IMAGE = np.zeros((20, 30, 3), np.uint8)
TWINS = raw([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]], [0.9, 0.8, 0.7], [0, 0, 1])


def test_the_floor_counts_scores_equal_to_it() -> None:
    found = finish(
        raw([[0, 0, 1, 1]] * 3, [0.1, 0.05, 0.04], [0, 0, 0]),
        10,
        10,
        score_floor=0.05,
        nms_iou=None,
        top_k=9,
    )
    assert found.scores.tolist() == np.float32([0.1, 0.05]).tolist()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (raw([[0, 0, 9, 9]], [np.nan], [0]), "scores that are not finite"),
        (raw([[0, 0, np.inf, 9]], [0.9], [0]), "boxes that are not finite"),
    ],
)
def test_numbers_that_are_none_are_an_error_of_the_image(found: Detections, says: str) -> None:
    with pytest.raises(AdapterError, match=says):
        LoadedTeacher(Fake(found), SPEC).predict([IMAGE])


def test_a_candidate_below_the_floor_may_lie_anywhere() -> None:
    found = raw([[0, 0, np.inf, 9], [0, 0, 9, 9]], [0.01, 1.001], [0, 0])
    (boxes,) = LoadedTeacher(Fake(found), SPEC).predict([IMAGE])
    assert boxes.scores.tolist() == [1.0]


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([5.3, 1.7], "scores from 1.7 to 5.3, expected 0 to 1: these look like logits"),
        ([-4.0, -0.5], "scores from -4 to -0.5, expected 0 to 1: these look like logits"),
        ([97.5, 41.0], "scores from 41 to 97.5, expected 0 to 1: these look like percent"),
    ],
)
def test_scores_outside_0_to_1_are_refused_saying_what_they_look_like(
    scores: list[float], says: str
) -> None:
    teacher = LoadedTeacher(Fake(raw([[0, 0, 9, 9]] * 2, scores, [0, 1])), SPEC)
    with pytest.raises(Misread, match=says):
        teacher.predict([IMAGE])


def test_labels_that_count_from_1_are_refused_by_that_name() -> None:
    teacher = LoadedTeacher(Fake(raw([[0, 0, 9, 9]] * 2, [0.9, 0.8], [1, 2])), SPEC)
    with pytest.raises(Misread, match=r"seem to count from 1: say first_label=1"):
        teacher.predict([IMAGE])


def test_boxes_are_cut_to_the_image_before_the_best_are_counted() -> None:
    found = finish(
        raw([[-9, -9, -1, -1], [-5, 5, 50, 8], [3, 3, 2, 9]], [0.9, 0.5, 0.8], [0, 0, 0]),
        30,
        20,
        score_floor=0,
        nms_iou=None,
        top_k=1,
    )
    assert found.boxes_xyxy.tolist() == [[0, 5, 30, 8]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), top_k=st.integers(1, 40), n=st.integers(0, 900))
def test_suppression_in_parts_equals_suppression_of_everything(
    seed: int, top_k: int, n: int
) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 60, (n, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 40, (n, 2))], 1).astype(np.float32)
    scores = random.permutation(n).astype(np.float32) / max(n, 1)
    class_ids = random.integers(0, 3, n)
    found = finish(
        Detections(boxes, scores, class_ids), 100, 100, score_floor=0, nms_iou=0.4, top_k=top_k
    )
    keep = torchvision.ops.batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(class_ids), 0.4
    ).numpy()[:top_k]
    assert found.scores.tolist() == scores[keep].tolist()


def test_a_detectors_own_nms_holds_unless_the_spec_says_otherwise() -> None:
    assert len(LoadedTeacher(Fake(TWINS), SPEC).predict([IMAGE])[0]) == 2
    assert len(LoadedTeacher(Fake(TWINS), replace(SPEC, nms_iou=0.95)).predict([IMAGE])[0]) == 3
    assert len(LoadedTeacher(Fake(TWINS), replace(SPEC, nms_iou="none")).predict([IMAGE])[0]) == 3


def test_a_teacher_says_which_suppression_runs() -> None:
    class Finished(Fake):
        nms_iou = None
        runtime: dict[str, str] = {"nms": "0.7 by its framework", "dtype": "float16"}  # noqa: RUF012

    assert LoadedTeacher(Fake(TWINS), SPEC).runtime == {"nms": "0.5"}
    assert LoadedTeacher(Fake(TWINS), replace(SPEC, nms_iou="none")).runtime == {"nms": "none"}
    told = LoadedTeacher(Finished(TWINS), SPEC).runtime
    assert told == {"nms": "0.7 by its framework", "dtype": "float16"}


def test_images_go_through_in_batches() -> None:
    fake = Fake(TWINS)
    assert len(LoadedTeacher(fake, replace(SPEC, batch_size=4)).predict([IMAGE] * 10)) == 10
    assert fake.batches == [4, 4, 2]


def test_a_class_without_name_is_an_error_that_says_what_to_do() -> None:
    teacher = LoadedTeacher(Fake(raw([[0, 0, 5, 5]], [0.9], [2])), SPEC)
    with pytest.raises(AdapterError, match=r"class indices 2 to 2.*2 class names.*classes=FILE"):
        teacher.predict([IMAGE])


def test_a_framework_that_fails_is_quoted_with_the_sizes() -> None:
    teacher = LoadedTeacher(Fake(RuntimeError("kernel too large")), SPEC)
    with pytest.raises(AdapterError, match=r"2 images of 30x20 pixels: RuntimeError: kernel too"):
        teacher.predict([IMAGE, IMAGE])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, adapter="ultralitics"), "unknown adapter.*Did you mean 'ultralytics'"),
        (replace(SPEC, options={"formt": "yolox"}), "no key 'formt'.*Did you mean 'format'"),
        (replace(SPEC, model=""), "needs a model, as in"),
        (replace(SPEC, batch_size=0), "batch_size=0: expected at least 1"),
        (replace(SPEC, top_k=0), "top_k=0"),
        (replace(SPEC, threads=0), "threads=0"),
        (replace(SPEC, score_floor=1.5), "score_floor=1.5: expected a number from 0 to 1"),
        (replace(SPEC, nms_iou=-0.1), "nms_iou=-0.1"),
    ],
)
def test_what_a_spec_cant_mean_is_a_usage_error(spec: AdapterSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_teacher(spec)
    with pytest.raises(UsageError, match=message):
        weights_files(spec)


def test_every_adapters_example_is_valid() -> None:
    for info in adapter_help():
        name, _, rest = info.example.partition("=")
        adapter, _, rest = rest.partition(":")
        model, *pairs = rest.split(",")
        options = dict(pair.split("=") for pair in pairs)
        assert name
        assert check_spec(AdapterSpec(adapter, model, options=options)) is adapter_info(info.name)


def test_every_adapter_says_what_to_install_and_its_licence() -> None:
    import tomllib

    root = Path(__file__).resolve().parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for info in adapter_help():
        assert not info.extra or info.extra in project["optional-dependencies"]
        assert info.licence
        assert info.summary
    assert adapter_info("ultralytics").licence == "AGPL-3.0"


def test_boxes_that_all_lie_far_away_are_no_boxes_of_the_image() -> None:
    teacher = LoadedTeacher(Fake(raw([[4e9, 4e9, 5e9, 5e9]], [0.9], [0])), SPEC)
    with pytest.raises(AdapterError, match="far outside an image of 30 pixels"):
        teacher.predict([IMAGE])
    # one of several, or of a letterbox's margin, is nothing unusual
    found = raw([[4e9, 4e9, 5e9, 5e9], [0, 0, 9, 9]], [0.9, 0.8], [0, 0])
    assert len(LoadedTeacher(Fake(found), SPEC).predict([IMAGE])[0]) == 1
    margin = Fake(raw([[31, 0, 39, 9]], [0.9], [0]))
    assert len(LoadedTeacher(margin, SPEC).predict([IMAGE])[0]) == 0
