"""An ONNX file with weights and activations of 8 bits: onnxruntime's static quantisation, of
convolutions and of products with weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from student_train.export.keeping import HEAVY, Candidate, choices
from student_train.runs.exported import Feeds


def int8_candidates(
    path: Path, batches: Sequence[Feeds], symmetric: bool = False
) -> list[Candidate]:
    """Ways to quantise a file, for `keep_ap`.

    Args:
        batches: photos that ranges are taken from.
        symmetric: whether 0 stays 0, of activations too, which TensorRT asks for.
    """
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return [
        Candidate(parts, partial(_quantise, path, batches, symmetric, left_out))
        for parts, left_out in choices(nodes)
    ]


def _quantise(
    path: Path, batches: Sequence[Feeds], symmetric: bool, left_out: list[str], target: Path
) -> None:
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
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(HEAVY),
            nodes_to_exclude=left_out,
            # a product of two things that are computed stays
            extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": symmetric},
        )
    finally:
        logging.disable(level)
