"""A student of ours as a teacher of the next: a run folder of `student-train`, or its weights file.

The one adapter that imports `student_train`, when it loads; the trainer itself knows no teachers.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from teacher_infer.adapters.batching import detect_by_size
from teacher_infer.adapters.info import AdapterInfo
from teacher_infer.adapters.loading import torch_device
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections


def load(spec: AdapterSpec) -> "StudentDetector":
    """The run's best weights, or an exported file; the trainer's own errors say what is wrong."""
    from student_train.predictor import load_predictor

    run = Path(spec.model).expanduser()
    return StudentDetector(load_predictor(run, torch_device(spec.device)))


def weights_files(spec: AdapterSpec) -> list[Path]:
    """The best weights and the run's configuration; or the one weights file."""
    run = Path(spec.model).expanduser()
    if run.is_file():
        return [run]
    files = [run / "config.json", run / "checkpoints" / "best.safetensors"]
    for path in files:
        if not path.is_file():
            raise AdapterError(
                f"{run} is not a run of student-train with best weights: expected a file at {path}"
            )
    return files


class StudentDetector:
    """A `Detector` over a trained student."""

    licence = "unknown"
    # students are trained to give one box an object
    nms_iou = None

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self.class_names: tuple[str, ...] = predictor.class_names
        self.runtime = {"nms": "none"}
        self.versions = {name: version(name) for name in ("teach-detr", "torch")}

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        """As `Detector.detect`."""
        return detect_by_size(images, self._detect_equal)

    def _detect_equal(self, images: list[np.ndarray]) -> list[Detections]:
        return [
            Detections(found.boxes_xyxy, found.scores, found.class_ids)
            for found in self._predictor.predict(images)
        ]


ADAPTER = AdapterInfo(
    name="student",
    summary="an earlier run of student-train: its folder",
    example="first=student:runs/first",
    licence="unknown",
    load=load,
    weights_files=weights_files,
    models=("a run folder", "a .safetensors file of a run", "an .onnx file exported from one"),
    reads=".safetensors",
    libraries=("torch", "timm"),
    model_is_folder=True,
)
