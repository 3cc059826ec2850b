"""Half precision keeps what overflows; eight bits are taken only where AP allows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from student_train.errors import ExportError
from student_train.export.folding import fold_weights
from student_train.export.half import half_candidates
from student_train.export.int8 import int8_candidates
from student_train.export.keeping import HEAVY, Kept, keep_ap
from student_train.export.runtimes import REFERENCE, RUNTIMES, Served

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., Path]
BATCH = {"images": np.random.default_rng(1).random((2, 3, 16, 16), np.float32)}


def run(path: Path) -> np.ndarray:
    with Served(REFERENCE, path) as served:
        return served.run(BATCH)["found"]


def lower(path: Path, kind: str, scores: Any = (), **options: Any) -> Kept:
    """By the AP that is told, 50 whatever is tried where it is not."""
    told = iter(scores)
    make = {"16 bits": half_candidates, "8 bits": int8_candidates}[kind]
    candidates = make(path, [BATCH], **options)
    return keep_ap(path, kind, candidates, [BATCH], lambda served: next(told, 0.5))


def test_half_has_the_same_inputs_and_nearly_the_same_numbers(network: Make) -> None:
    path = network()
    expected, size = run(path), path.stat().st_size
    assert lower(path, "16 bits").taken.parts == "everything"
    found = run(path)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())
    assert path.stat().st_size < 0.75 * size


def test_what_overflows_stays_in_float32(network: Make) -> None:
    path = network(scale=1e4)
    expected = run(path)
    # the second convolution and the product of its mean
    assert lower(path, "16 bits").taken.parts == "everything (2 products stay in float32)"
    heavy = [node for node in onnx.load(str(path)).graph.node if node.op_type in HEAVY]
    assert [node.input[0].endswith("_half") for node in heavy] == [True, False, False]
    np.testing.assert_allclose(run(path), expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["16 bits", "8 bits"])
def test_files_of_fewer_bits_load_in_openvino(network: Make, kind: str) -> None:
    pytest.importorskip("openvino")
    path = network()
    expected = run(path)
    lower(path, kind)
    openvino = next(each for each in RUNTIMES if each.name == "openvino, float32")
    with Served(openvino, path) as served:
        found = served.run(BATCH)["found"]
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize("symmetric", [False, True])
def test_eight_bits_are_taken_where_little_is_lost(network: Make, symmetric: bool) -> None:
    path = network()
    expected = run(path)
    found = lower(path, "8 bits", symmetric=symmetric)
    assert found.taken.parts == "everything"
    assert found.taken.size == path.stat().st_size
    assert found.taken.ms is not None
    assert found.taken.ms > 0
    now = run(path)
    assert not np.array_equal(now, expected)
    np.testing.assert_allclose(now, expected, atol=0.1 * np.abs(expected).max())
    # TensorRT reads nothing whose zero is not zero
    zeros = [
        onnx.numpy_helper.to_array(one)
        for one in onnx.load(str(path)).graph.initializer
        if one.name.endswith("zero_point")
    ]
    assert zeros
    assert all((each == 0).all() for each in zeros) == symmetric


@pytest.mark.parametrize("kind", ["16 bits", "8 bits"])
def test_what_loses_ap_is_left_out_or_all_is_refused(network: Make, kind: str) -> None:
    path = network()
    before = path.read_bytes()
    found = lower(path, kind, [0.5, 0.4, 0.495])
    assert found.taken.parts == "convolutions"
    assert [round(each.ap, 1) for each in found.tried] == [50, 40, 49.5]
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert kinds[-1] == "MatMul"
    path.write_bytes(before)
    with pytest.raises(ExportError, match=rf"{kind} lose more than 1 .* convolutions: AP 48\.0"):
        lower(path, kind, [0.5, 0.4, 0.48])
    assert path.read_bytes() == before
    with pytest.raises(ExportError, match=r"convolutions: AP nan"):
        lower(path, kind, [0.5, float("nan"), float("nan")])


def test_weights_that_are_cut_and_turned_are_weights() -> None:
    node, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
    weight = np.arange(24, dtype=np.float32).reshape(6, 4)
    graph = onnx.helper.make_graph(
        [
            node("Split", ["w"], ["q", "k"], axis=0, num_outputs=2),
            node("Transpose", ["k"], ["kt"], perm=[1, 0]),
            node("MatMul", ["x", "kt"], ["y"]),
        ],
        "made",
        [onnx.helper.make_tensor_value_info("x", kind, [2, 4])],
        [onnx.helper.make_tensor_value_info("y", kind, [2, 3])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    assert fold_weights(model) == 2
    assert [each.op_type for each in model.graph.node] == ["MatMul"]
    (left,) = model.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(left), weight[3:].T)
