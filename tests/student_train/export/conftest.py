"""ONNX files made by hand: small enough to run in every runtime within a second."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.categories import Categories, Category, ClassSpace
from student_train.presets import load_preset
from student_train.runs.exported import CARD, file_card
from student_train.runs.trained import TrainedStudent

onnx = pytest.importorskip("onnx")
SPACE = ClassSpace("contiguous", Categories((Category(2, "cat"), Category(5, "dog"))))


def save(path: Path, nodes: list[Any], inputs: Any, outputs: Any, weights: Any) -> Path:
    """A graph of `nodes`; inputs and outputs are (name, type, shape), weights arrays by name."""
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Path]:
    """Two convolutions, a mean and a product: `scale` is that of the second's weights."""

    def make(name: str = "net.onnx", scale: float = 1.0) -> Path:
        rng = np.random.default_rng(0)
        weights = {
            "w1": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
            "b1": rng.normal(size=8).astype(np.float32),
            "w2": (scale * rng.normal(size=(8, 8, 3, 3))).astype(np.float32),
            "w3": rng.normal(size=(8, 5)).astype(np.float32),
        }
        node = onnx.helper.make_node
        nodes = [
            node("Conv", ["images", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"], name="relu"),
            node("Conv", ["r1", "w2"], ["c2"], name="second", pads=[1, 1, 1, 1]),
            node("ReduceMean", ["c2", "axes"], ["m"], name="mean", keepdims=0),
            node("MatMul", ["m", "w3"], ["found"], name="product"),
        ]
        weights["axes"] = np.array([2, 3])
        kind = onnx.TensorProto.FLOAT
        return save(
            tmp_path / name,
            nodes,
            [("images", kind, ["batch", 3, 16, 16])],
            [("found", kind, ["batch", 5])],
            weights,
        )

    return make


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., Path]:
    """A student's file that always sees a dog in the left half, surest, and a cat everywhere."""

    def make(batch: object = "batch", height: object = "h", width: object = "w") -> Path:
        config = load_preset("dino-micro")
        config = replace(config, model=replace(config.model, n_classes=2))
        node = onnx.helper.make_node
        found = {
            "scores": np.array([[0.9, 0.6]], np.float32),
            "labels": np.array([[1, 0]]),
            "boxes": np.array([[[0, 0, 0.5, 1], [0, 0, 1, 1]]], np.float32),
        }
        kinds = {"scores": onnx.TensorProto.FLOAT, "labels": onnx.TensorProto.INT64}
        nodes = [
            node("Shape", ["images"], ["b"], end=1),
            # a mask that is not looked at would be dropped
            node("Shape", ["mask"], ["b2"], end=1),
            node("Min", ["b", "b2"], ["n"]),
        ]
        outputs = []
        for name, value in found.items():
            rest = f"{name}_rest"
            found_shape = list(value.shape[1:])
            nodes.append(node("Concat", ["n", rest], [f"{name}_shape"], axis=0))
            nodes.append(node("Expand", [f"{name}_value", f"{name}_shape"], [name]))
            outputs.append((name, kinds.get(name, onnx.TensorProto.FLOAT), [batch, *found_shape]))
        weights = {f"{name}_value": value for name, value in found.items()}
        weights |= {f"{name}_rest": np.array(value.shape[1:]) for name, value in found.items()}
        path = save(
            tmp_path / "student.onnx",
            nodes,
            [
                ("images", onnx.TensorProto.FLOAT, [batch, 3, height, width]),
                ("mask", onnx.TensorProto.BOOL, [batch, height, width]),
            ],
            outputs,
            weights,
        )
        model = onnx.load(str(path))
        student: Any = TrainedStudent(_Nothing(), config, SPACE, "test")  # type: ignore[arg-type]
        for key, value in {"producer": "teach-detr", CARD: json.dumps(file_card(student))}.items():
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, str(path))
        return path

    return make


class _Nothing:
    def state_dict(self) -> dict[str, Any]:
        return {}
