"""How large the numbers inside an ONNX file become on batches of images."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from student_train.export.runtimes import REFERENCE, Served


def largest_values(model: Any, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """By the name of every float value that a node makes, and of every float weight, the largest
    magnitude that is finite.

    Raises:
        ExportError: onnxruntime cannot run the file.
    """
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    told = {output.name for output in whole.graph.output}
    for node in whole.graph.node:
        for name in node.output:
            if name and name not in told:
                whole.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    largest: dict[str, float] = {
        one.name: _largest(onnx.numpy_helper.to_array(one)) for one in whole.graph.initializer
    }
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        path = Path(folder) / "all.onnx"
        onnx.save_model(whole, str(path))
        with Served(REFERENCE, path) as served:
            for batch in batches:
                for name, value in served.run(batch).items():
                    largest[name] = max(largest.get(name, 0.0), _largest(value))
    return largest


def _largest(value: np.ndarray) -> float:
    if value.dtype.kind != "f":
        return 0.0
    finite = np.abs(value[np.isfinite(value)])
    return float(finite.max(initial=0.0))
