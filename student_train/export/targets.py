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

    summary: str
    """for people: what is set, and why"""
    sampler: Sampler = "gather"
    dynamic: Dynamic = "size"
    symmetric: bool = False
    """whether zero has to be the zero of 8 bits, of activations too"""
    lowers_itself: bool = False
    """whether it takes float32 and lowers precision by tools of its own, and nothing else"""
    notes: Mapping[str, str] = field(default_factory=dict)
    """for the file's metadata"""


TARGETS: dict[str, Target] = {
    "onnxruntime": Target("batch, height and width are free"),
    "openvino": Target(
        "batch, height and width are free; the metadata `openvino` hold the settings to compile "
        "with, as bfloat16, its own choice on newer CPUs, moves boxes",
        notes={"openvino": json.dumps({"INFERENCE_PRECISION_HINT": "f32"})},
    ),
    "tensorrt": Target(
        "one height and width, as free ones forbid it most fusions; the batch is free. 8 bits are "
        "symmetric, which is all it reads; 16 bits it makes itself (--fp16)",
        dynamic="batch",
        symmetric=True,
    ),
    "web": Target(
        "one image of one size: WebGPU computes shapes on the CPU otherwise, and waits for it",
        dynamic="none",
    ),
    "coreml": Target(
        "one image of one size, float32: coremltools converts the .pt2 of --torch-export, and "
        "lowers precision itself",
        dynamic="none",
        lowers_itself=True,
    ),
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
