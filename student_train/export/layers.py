"""The first layer of an ONNX file that a runtime computes otherwise."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from student_train.export.runtimes import REFERENCE, Runtime, Served

# rounding that grows from layer to layer is no fault of one
_APART = 1e-2


@dataclass(frozen=True)
class Layer:
    """A node, and how far its output is off."""

    name: str
    operator: str
    apart: float
    """largest difference, in the largest of the values that were expected"""
    n_nodes: int
    """nodes of the file"""
    at: int
    """which of them it is, from 1"""

    def describe(self) -> str:
        """For people."""
        return (
            f"the first layer that differs is {self.operator} {self.name} (node {self.at} of "
            f"{self.n_nodes}): by {self.apart:.1e} of its largest value"
        )


def first_difference(
    path: Path, runtime: Runtime, batch: Mapping[str, np.ndarray], apart: float = _APART
) -> Layer | None:
    """Run the file with the results of all its nodes as outputs, in onnxruntime without any
    optimisation and in `runtime`; None where no node differs, as an optimisation may be at fault
    that these outputs prevent.

    Raises:
        ExportError: the runtime cannot run such a file.
    """
    import onnx

    model = onnx.load(str(path))
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    told = {output.name for output in model.graph.output}
    for node in nodes:
        for name in node.output:
            if name and name not in told:
                model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        whole = Path(folder) / "all.onnx"
        onnx.save_model(model, str(whole))
        with Served(REFERENCE, whole) as reference:
            expected = reference.run(batch)
        with Served(runtime, whole) as served:
            found = served.run(batch)
    for at, node in enumerate(nodes):
        for name in node.output:
            off = _off(expected.get(name), found.get(name))
            if off > apart:
                return Layer(name, node.op_type, off, len(nodes), at + 1)
    return None


def _off(expected: np.ndarray | None, found: np.ndarray | None) -> float:
    if expected is None or found is None or not expected.size:
        return 0.0
    if expected.shape != found.shape:
        return float("inf")
    wanted, got = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where(wanted == got, 0.0, np.abs(wanted - got))
    finite = np.abs(wanted[np.isfinite(wanted)])
    scale = float(finite.max(initial=0.0)) or 1.0
    return float(np.nan_to_num(apart, nan=np.inf).max()) / scale
