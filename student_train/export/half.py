"""An ONNX file with its weights and heavy operations in float16.

Convolutions and matrix products are computed in float16, and what follows a convolution cell by
cell stays there; places, boxes, softmaxes and norms stay in float32, and so does every operation
whose numbers went beyond float16 on the batches that were tried. Inputs and outputs are float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from student_train.export.keeping import HEAVY, Candidate, choices
from student_train.export.ranges import largest_values
from student_train.runs.exported import Feeds

_LIGHT = ("Relu", "Sigmoid", "Mul", "Add", "MaxPool", "HardSwish", "HardSigmoid", "Clip")
# of the largest float16, which other photos may come nearer to
_LARGEST = 65504.0 / 4


def to_half(
    model: Any, largest: Mapping[str, float], left_out: Sequence[str] = ()
) -> tuple[Any, int]:
    """A copy in half precision, and how many products with weights stay in float32 for their
    numbers.

    Args:
        model: an onnx.ModelProto of float32.
        largest: of every value that was seen, by name, the largest magnitude (`largest_values`).
        left_out: names of heavy nodes that stay in float32 whatever their numbers.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    weights = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT}
    uses = Counter(name for node in graph.node for name in node.input)
    chosen = _chosen(graph.node, weights, largest, set(left_out))
    overflowing = [
        node.name
        for node in graph.node
        if node.op_type in HEAVY
        and any(name in weights for name in node.input)
        and node.name not in chosen
        and node.name not in left_out
    ]
    half_weights: dict[str, str] = {}
    half_values: dict[str, str] = {}
    nodes: list[Any] = []

    def as_half(name: str) -> str:
        if name in weights:
            if name not in half_weights:
                value = numpy_helper.to_array(weights[name]).astype(np.float16)
                half_weights[name] = f"{name}_half"
                graph.initializer.append(numpy_helper.from_array(value, half_weights[name]))
            return half_weights[name]
        if name not in half_values:
            half_values[name] = f"{name}_half"
            nodes.append(_cast(helper, name, half_values[name], TensorProto.FLOAT16))
        return half_values[name]

    float_users = Counter(
        name for node in graph.node if node.name not in chosen for name in node.input
    )
    outputs = {one.name for one in graph.output}
    for node in graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        node.input[:] = [as_half(name) if name else name for name in node.input]
        name = node.output[0]
        node.output[0] = half_values[name] = f"{name}_half"
        nodes.append(node)
        if float_users[name] or name in outputs:
            nodes.append(_cast(helper, half_values[name], name, TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    still = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in still or uses[one.name] == 0]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return made, len(overflowing)


def _chosen(
    nodes: Iterable[Any],
    weights: Mapping[str, Any],
    largest: Mapping[str, float],
    left_out: set[str],
) -> set[str]:
    """Names of the nodes that compute in float16; ONNX lists nodes in order of execution."""
    chosen: set[str] = set()
    in_half: set[str] = set()
    for node in nodes:
        values = [*node.input, *node.output]
        overflows = any(largest.get(name, 0.0) > _LARGEST for name in values)
        if overflows or node.name in left_out:
            continue
        if node.op_type in HEAVY:
            # a product of two things that are computed, as in attention, is left alone
            if not any(name in weights for name in node.input):
                continue
        elif node.op_type not in _LIGHT or not all(
            name in in_half or name in weights for name in node.input if name
        ):
            continue
        chosen.add(node.name)
        if node.op_type != "MatMul":
            in_half.update(node.output)
    return chosen


def _cast(helper: Any, source: str, target: str, kind: int) -> Any:
    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)


def half_candidates(path: Path, batches: Sequence[Feeds]) -> list[Candidate]:
    """Ways to halve a file, for `keep_ap`; `batches` are photos that numbers are looked at on.

    Raises:
        ExportError: onnxruntime cannot run the file.
    """
    import onnx

    model = onnx.load(str(path))
    largest = largest_values(model, batches)

    def write(left_out: list[str], target: Path) -> None:
        made, _ = to_half(model, largest, left_out)
        onnx.checker.check_model(made)
        onnx.save_model(made, str(target))

    found = []
    for parts, left_out in choices(model.graph.node):
        _, n_float = to_half(model, largest, left_out)
        stay = f" ({n_float} products stay in float32)" if n_float else ""
        found.append(Candidate(parts + stay, partial(write, left_out)))
    return found
