"""An ONNX file with weights and activations of 8 bits, as far as AP allows.

onnxruntime's static quantisation, of convolutions and of products with weights. What is left out is
chosen by measurement: all is quantised, then all before the queries are chosen, then convolutions
alone; the first that loses no more than it may is taken.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from box_store.patience import Say, patience
from student_train.errors import ExportError
from student_train.export.runtimes import RUNTIMES, Served

Feeds = Mapping[str, np.ndarray]
MOST_LOST = 1.0
"""points of AP"""


@dataclass(frozen=True)
class Tried:
    """What was quantised, and what came of it."""

    parts: str
    ap: float
    """in percent"""
    size: int
    """bytes"""
    ms: float
    """median of a batch on one core in onnxruntime"""

    def describe(self) -> str:
        """For people."""
        return f"{self.parts}: AP {self.ap:.1f}, {self.size / 2**20:.1f} MiB, {self.ms:.0f} ms"


@dataclass(frozen=True)
class Quantised:
    """The file that was taken, and all that were measured, float32 first."""

    taken: Tried
    tried: list[Tried]


def quantise(
    path: Path,
    batches: Sequence[Feeds],
    score: Callable[[Served], float],
    say: Say = lambda text: None,
    most_lost: float = MOST_LOST,
) -> Quantised:
    """Replace a file by one of 8 bits.

    Args:
        batches: photos that ranges are taken from.
        score: a file in a runtime to its AP, in 0..1.
        most_lost: points of AP that it may lose.

    Raises:
        ExportError: whatever is left out, more is lost; the file stays as it is.
    """
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    tried = [_measured("float32", path, batches, score, say)]
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        for parts, left_out in _choices(nodes):
            target = Path(folder) / "int8.onnx"
            with patience(say, f"quantising {parts}"):
                _quantise(path, target, batches, left_out)
            tried.append(_measured(parts, target, batches, score, say))
            say(f"8 bits    {tried[-1].describe()} (float32: {tried[0].describe()})")
            if tried[-1].ap >= tried[0].ap - most_lost:
                path.write_bytes(target.read_bytes())
                return Quantised(tried[-1], tried)
    raise ExportError(
        f"8 bits lose more than {most_lost:g} points of AP whatever is left out ("
        + "; ".join(each.describe() for each in tried)
        + "): nothing was quantised"
    )


def _choices(nodes: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """What to quantise, and the names of the nodes that are left out."""
    heavy = [node for node in nodes if node.op_type in ("Conv", "MatMul", "Gemm")]
    order = {node.name: at for at, node in enumerate(nodes)}
    first = min((at for at, node in enumerate(nodes) if node.op_type == "TopK"), default=len(nodes))
    after = [node.name for node in heavy if order[node.name] > first]
    products = [node.name for node in heavy if node.op_type != "Conv"]
    choices: list[tuple[str, list[str]]] = [("everything", [])]
    if after:
        choices.append(("what comes before the queries", after))
    if len(products) < len(heavy):
        choices.append(("convolutions", products))
    return choices


def _quantise(path: Path, target: Path, batches: Sequence[Feeds], left_out: list[str]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(batches)

        def get_next(self) -> Any:
            return next(self.rest, None)

    level = logging.root.manager.disable
    # advice to run a pass that these files do not need
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(path),
            str(target),
            Photos(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=left_out,
            # a product of two things that are computed stays
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(level)


def _measured(
    parts: str, path: Path, batches: Sequence[Feeds], score: Callable[[Served], float], say: Say
) -> Tried:
    with patience(say, f"measuring AP of {parts}"), Served(RUNTIMES[0], path) as served:
        ap = 100 * score(served)
        served.seconds.clear()
        for _ in range(5):
            served.run(batches[0])
        return Tried(parts, ap, path.stat().st_size, 1000 * float(np.median(served.seconds)))
