"""What each runtime wants of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from box_store.errors import UsageError, nearest
from student_train.export.attention import Sampler
from student_train.export.program import Dynamic


@dataclass(frozen=True)
class Target:
    """A runtime that files are written for."""

    sampler: Sampler = "gather"
    dynamic: Dynamic = "size"
    symmetric: bool = False
    """whether zero has to be the zero of 8 bits, of activations too"""
    lowers_itself: bool = False
    """whether it takes float32 and lowers precision by tools of its own, and nothing else"""
    notes: Mapping[str, str] = field(default_factory=dict)
    """for the file's metadata"""


TARGETS: dict[str, Target] = {
    "onnxruntime": Target(),
    # bfloat16, its own choice on newer CPUs, moves boxes: the settings to compile with
    "openvino": Target(notes={"openvino": json.dumps({"INFERENCE_PRECISION_HINT": "f32"})}),
    # free sizes forbid it most fusions; it reads symmetric 8 bits alone, and makes 16 bits itself
    "tensorrt": Target(dynamic="batch", symmetric=True),
    # WebGPU computes shapes on the CPU otherwise, and waits for it
    "web": Target(dynamic="none"),
    # coremltools converts the .pt2 of --torch-export
    "coreml": Target(dynamic="none", lowers_itself=True),
}


def target_of(name: str | None) -> Target:
    """By name; nothing asked for is onnxruntime, which leaves all free.

    Raises:
        UsageError: there is no such runtime.
    """
    if name is None:
        return TARGETS["onnxruntime"]
    if name not in TARGETS:
        raise UsageError(
            f"--for is one of {', '.join(TARGETS)}, got {name!r}.{nearest(name, TARGETS)}"
        )
    return TARGETS[name]
