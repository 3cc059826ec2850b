"""Finished boxes as people export them, read by name, type and rank; and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.errors import UsageError
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Misread
from teacher_infer.teachers.loaded import load_teacher, weights_files, weights_sha256

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

IMAGE = np.full((48, 64, 3), 100, np.uint8)
BOXES = np.array([[[4, 4, 20, 20], [30, 10, 60, 40]]], np.float32)
SCORES = np.array([[0.9, 0.6]], np.float32)
LABELS = np.array([[0, 1]], np.int64)
EXPECTED = [([4, 4, 20, 20], 0.9, 0), ([30, 10, 60, 40], 0.6, 1)]

Save = Callable[..., AdapterSpec]


@pytest.fixture
def save(constants: Callable[..., Path]) -> Save:
    """save(options=None, output=values, ...) -> a teacher of these constants."""

    def build(options: dict[str, str] | None = None, **outputs: np.ndarray) -> AdapterSpec:
        path = constants({"images": (TensorProto.FLOAT, [1, 3, 48, 64])}, **outputs)
        given = {"format": "boxes"} if options is None else options
        return AdapterSpec("onnx", str(path), threads=1, options=given)

    return build


def found(spec: AdapterSpec) -> list[tuple[list[float], Any, int]]:
    boxes = load_teacher(spec).predict([IMAGE])[0]
    rows = zip(boxes.boxes_xyxy.tolist(), boxes.scores.tolist(), boxes.class_ids, strict=True)
    return [(corners, pytest.approx(score), int(key)) for corners, score, key in rows]


def with_padding(value: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([value, rows[None].astype(value.dtype)], axis=1)


COUNT = np.array([[2]], np.int32)
JUNK = np.array([[7, 7, 30, 30], [1, 1, 9, 9]])
NAMES = {
    "mmyolo": ("num_dets", "boxes", "scores", "labels"),
    "yolov6 to v9, DAMO-YOLO": ("num_dets", "det_boxes", "det_scores", "det_classes"),
    "without names": ("num_detections", "101", "102", "103"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("label_type", [np.int32, np.int64])
@pytest.mark.parametrize("first", [0, 3])
def test_an_nms_in_the_graph_says_how_many_rows_count(
    save: Save, names: tuple[str, ...], label_type: Any, first: int
) -> None:
    values = [
        COUNT,
        with_padding(BOXES, JUNK),
        with_padding(SCORES, np.array([0.95, 0.9])),
        with_padding(LABELS, np.array([1, 1])).astype(label_type),
    ]
    outputs = dict(zip(names, values, strict=True))
    order = [*names[first:], *names[:first]]
    assert found(save(**{name: outputs[name] for name in order})) == EXPECTED


@pytest.mark.parametrize("n", [-1, 3])
def test_a_number_of_rows_that_are_not_there_is_refused(save: Save, n: int) -> None:
    count = np.array([[n]], np.int32)
    with pytest.raises(AdapterError, match=f"says that {n} of its 2 rows"):
        found(save(num_dets=count, boxes=BOXES, scores=SCORES, labels=LABELS))


def test_lists_of_more_images_than_were_shown_are_refused(save: Save) -> None:
    twice = [np.concatenate([each, each]) for each in (BOXES, SCORES, LABELS)]
    with pytest.raises(AdapterError, match="2 lists of boxes came for 1 images"):
        found(save(**dict(zip(("boxes", "scores", "labels"), twice, strict=True))))


def test_rows_that_fill_up_a_list_are_none(save: Save) -> None:
    boxes = with_padding(BOXES, np.zeros((2, 4)))
    scores = with_padding(SCORES, np.array([-1, 0]))
    labels = with_padding(LABELS, np.array([-1, -1]))
    assert found(save(boxes=boxes, scores=scores, labels=labels)) == EXPECTED


@pytest.mark.parametrize("n", [1, 4, 5])
def test_outputs_without_names_are_told_apart_by_type_and_rank(save: Save, n: int) -> None:
    rows = {
        "100": np.tile(BOXES[:, :1], (1, n, 1)),
        "101": np.tile(SCORES[:, :1], (1, n)),
        "102": np.tile(LABELS[:, 1:], (1, n)),
    }
    for order in (rows, dict(reversed(rows.items()))):
        assert found(save(**order)) == [([4, 4, 20, 20], 0.9, 1)] * n
    assert (
        found(save(**{key: value[0] for key, value in rows.items()}))
        == [([4, 4, 20, 20], 0.9, 1)] * n
    )


def test_columns_and_labels_as_numbers_are_read(save: Save) -> None:
    spec = save(boxes=BOXES, scores=SCORES[..., None], labels=LABELS.astype(np.float32))
    assert found(spec) == EXPECTED
    with pytest.raises(AdapterError, match="labels should be whole numbers"):
        found(save(boxes=BOXES, scores=SCORES, labels=LABELS + np.float32(0.5)))


@pytest.mark.parametrize(
    ("layout", "boxes"),
    [
        ("yxyx", [[4, 4, 20, 20], [10, 30, 40, 60]]),
        ("xywh", [[4, 4, 16, 16], [30, 10, 30, 30]]),
        ("cxcywh", [[12, 12, 16, 16], [45, 25, 30, 30]]),
    ],
)
def test_other_layouts_can_be_said(save: Save, layout: str, boxes: list[list[float]]) -> None:
    options = {"format": "boxes", "layout": layout}
    values = np.array([boxes], np.float32)
    assert found(save(options=options, boxes=values, scores=SCORES, labels=LABELS)) == EXPECTED


def test_labels_may_count_from_1(save: Save, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    options = {"format": "boxes", "classes": str(tmp_path / "names.txt")}
    spec = save(options=options, boxes=BOXES, scores=SCORES, labels=LABELS + 1)
    with pytest.raises(Misread, match="seem to count from 1: say first_label=1"):
        found(spec)
    assert found(replace(spec, options=options | {"first_label": "1"})) == EXPECTED


@pytest.mark.parametrize(
    ("outputs", "error", "says"),
    [
        # A-F5
        ({"scores": np.array([[5.3, 1.7]], np.float32)}, Misread, "from 1.7 to 5.3.*logits"),
        ({"scores": np.array([[97.0, 30.0]], np.float32)}, Misread, "look like percent"),
        ({"scores": np.array([[np.nan, 0.5]], np.float32)}, AdapterError, "not finite"),
        ({"boxes": BOXES + np.float32(np.inf)}, AdapterError, "boxes that are not finite"),
        ({"boxes": BOXES / 64}, AdapterError, "fractions of the image; say frame=unit"),
        ({"boxes": BOXES[:, :, [2, 3, 0, 1]]}, AdapterError, r"no x1, y1, x2, y2.*layout="),
        (
            {"scores": np.zeros((1, 2, 80), np.float32)},
            AdapterError,
            r"scores float32 \[1, 2, 80\]",
        ),
        ({"labels": LABELS[:, :1]}, AdapterError, r"labels int64 \[1, 1\]"),
    ],
)
def test_what_can_not_be_meant_is_refused_saying_what_it_looks_like(
    save: Save, outputs: dict[str, np.ndarray], error: type[Exception], says: str
) -> None:
    values = {"boxes": BOXES, "scores": SCORES, "labels": LABELS} | outputs
    with pytest.raises(error, match=says):
        found(save(**values))


def test_a_rounding_error_above_1_is_1(save: Save) -> None:
    scores = np.array([[1.004, 0.6]], np.float32)
    assert found(save(boxes=BOXES, scores=scores, labels=LABELS))[0][1] == 1


@pytest.fixture
def bytes_model(tmp_path: Path) -> AdapterSpec:
    """A model of whole numbers [1, H, W, 3] whose first score is the mean of its input / 255."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["mean", "whole"], ["share"]),
        helper.make_node("Mul", ["share", "both"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "first"], ["scores"]),
        helper.make_node("Identity", ["b"], ["boxes"]),
        helper.make_node("Identity", ["l"], ["labels"]),
    ]
    held = [
        numpy_helper.from_array(np.array(255, np.float32), "whole"),
        numpy_helper.from_array(np.ones(2, np.float32), "both"),
        numpy_helper.from_array(np.array([0]), "first"),
        numpy_helper.from_array(BOXES, "b"),
        numpy_helper.from_array(LABELS, "l"),
    ]
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 2, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 2]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 48, 64, 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    path = tmp_path / "u8.onnx"
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return AdapterSpec("onnx", str(path), threads=1, options={"format": "boxes"})


def test_whole_numbers_get_pixels_as_they_are(bytes_model: AdapterSpec) -> None:
    assert [row[1] for row in found(bytes_model)] == pytest.approx([100 / 255] * 2, abs=1e-6)


@pytest.mark.parametrize("options", [{"std": "255"}, {"std": "58.4/57.1/57.4"}, {"mean": "123.7"}])
def test_whole_numbers_can_not_be_scaled(bytes_model: AdapterSpec, options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"whole numbers \(uint8\).*Leave mean and std out"):
        load_teacher(replace(bytes_model, options={"format": "boxes", **options}))


def test_weights_beside_the_file_are_part_of_the_teacher(
    tmp_path: Path, external: Callable[..., None]
) -> None:
    path = tmp_path / "m.onnx"
    spec = AdapterSpec("onnx", str(path), threads=1, options={"format": "boxes"})
    external(path, 0.9)
    graph, before = path.read_bytes(), weights_sha256(weights_files(spec))
    assert weights_files(spec) == [path, tmp_path / "m.onnx.data"]
    assert found(spec)[0][1] == pytest.approx(0.9)
    external(path, 0.4)
    assert path.read_bytes() == graph
    assert weights_sha256(weights_files(spec)) != before
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(AdapterError, match=r"weights of m.onnx not found: .*m.onnx.data"):
        weights_files(spec)


@pytest.mark.parametrize("location", ["../other.data", "/etc/hostname", "a/../../b", "C:\\x"])
def test_weights_can_not_lie_outside_the_models_folder(
    tmp_path: Path, external: Callable[..., None], location: str
) -> None:
    external(tmp_path / "m.onnx", 0.9, location)
    spec = AdapterSpec("onnx", str(tmp_path / "m.onnx"), options={"format": "boxes"})
    with pytest.raises(AdapterError, match="leads out of the model's folder"):
        weights_files(spec)
