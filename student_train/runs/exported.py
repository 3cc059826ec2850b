"""A student as an exported ONNX file holds it: the file says everything that its use needs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from student_train.config import as_plain, from_plain
from student_train.errors import ConfigError, ExportError
from student_train.models.config import StudentConfig
from student_train.models.output import Selected
from student_train.runs.run_folder import class_space_from_plain, class_space_to_plain
from student_train.runs.trained import TrainedStudent

CARD = "teach_detr"
"""key of the metadata that holds the card"""
SUFFIX = ".onnx"
INPUTS = ("images", "mask")
OUTPUTS = ("scores", "labels", "boxes")

Feeds = dict[str, np.ndarray]
"""tensors by name"""


def file_card(student: TrainedStudent) -> dict[str, Any]:
    """What decides how images go in and what comes out, for a file's metadata: settings of the
    network and of the evaluation's resizing, categories, and a hash of the weights. No paths.
    """
    plain = as_plain(replace(student.config, model=_without_paths(student.config.model)))
    digest = hashlib.sha256()
    for name, value in student.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return {
        "model": plain["model"],
        "augment": plain["augment"],
        "classes": class_space_to_plain(student.class_space),
        "weights_sha256": digest.hexdigest(),
    }


def _without_paths(config: StudentConfig) -> StudentConfig:
    return replace(config, backbone_weights=None)


def is_exported(path: object) -> bool:
    """Whether a name is that of an exported file."""
    return str(path).lower().endswith(SUFFIX)


def open_session(path: Path, threads: int | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Raises:
        ExportError: onnxruntime is missing, or cannot open the file.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise ExportError(
            f"{path} needs onnxruntime, which is not installed: pip install 'teach-detr[onnx]'"
        )
    import onnxruntime

    if not path.is_file():
        raise ExportError(f"no ONNX file at {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise ExportError(f"{path}: onnxruntime cannot open it as a model: {error}") from error


def load_exported(path: Path, threads: int | None = None) -> TrainedStudent:
    """A file written by `student-train export`, as what it was made from: its `model` runs the
    file in onnxruntime on the CPU, and cannot be trained.

    Raises:
        ExportError: the file is missing or damaged, or somebody else's.
    """
    session = open_session(path, threads)
    about = session.get_modelmeta().custom_metadata_map
    if CARD not in about:
        names = [one.name for one in session.get_inputs()]
        outputs = [one.name for one in session.get_outputs()]
        raise ExportError(
            f"{path} does not say which student it is (inputs {', '.join(names)}; outputs "
            f"{', '.join(outputs)}): expected a file written by student-train export. Files of "
            "other tools are read as teachers: teacher-infer --teacher x=onnx:FILE"
        )
    try:
        told = json.loads(about[CARD])
        config = from_plain({"model": told["model"], "augment": told["augment"]}, str(path))
        space = class_space_from_plain(told["classes"])
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise ExportError(f"{path}: its metadata cannot be read: {error}") from error
    shape = next(one.shape for one in session.get_inputs() if one.name == INPUTS[0])
    names = list(OUTPUTS)

    def run(feeds: Feeds) -> Feeds:
        return dict(zip(names, session.run(names, feeds), strict=True))

    model = FileStudent(run, shape, config.model, path)
    return TrainedStudent(model.eval(), config, space, str(path))  # type: ignore[arg-type]


class FileStudent(nn.Module):
    """An exported file in the place of a network."""

    def __init__(
        self,
        run: Callable[[Feeds], Feeds],
        shape: Sequence[object],
        config: StudentConfig,
        path: Path,
    ) -> None:
        """`run` takes inputs and gives outputs by name; `shape` is that of its images,
        [B, 3, H, W], a name where it is free.
        """
        super().__init__()
        self.config = config
        self.path = path
        self._program = run
        self._batch, _, *self._canvas = (side if isinstance(side, int) else None for side in shape)

    def forward(self, images: Tensor, mask: Tensor) -> Selected:
        """As `Student.forward`; a file of one size sees smaller images in its upper left corner.

        Raises:
            ExportError: images are larger than the file's size.
        """
        images, mask = self._on_canvas(images.cpu(), mask.cpu())
        step = self._batch or len(images)
        parts = [
            self._run(images[at : at + step], mask[at : at + step])
            for at in range(0, len(images), step)
        ]
        found = (torch.cat(each) for each in zip(*parts, strict=True))
        return Selected(*found)

    def _run(self, images: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        n_images = len(images)
        if self._batch is not None and n_images < self._batch:
            # a file of a fixed batch gets its last image again until the batch is full
            rows = torch.arange(self._batch).clamp(max=n_images - 1)
            images, mask = images[rows], mask[rows]
        fed = {INPUTS[0]: np.ascontiguousarray(images.numpy()), INPUTS[1]: mask.numpy()}
        found = self._program(fed)
        return tuple(torch.from_numpy(found[name])[:n_images] for name in OUTPUTS)

    def _on_canvas(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        missing = []
        for side, wanted in zip(images.shape[2:], self._canvas, strict=True):
            missing.append(0 if wanted is None else wanted - side)
        if min(missing) < 0:
            height, width = self._canvas
            raise ExportError(
                f"{self.path} takes images of {height} x {width} px (height x width), and this one "
                f"is {images.shape[2]} x {images.shape[3]}: export it again with a --size that "
                "holds images of either orientation"
            )
        below, right = missing
        if below or right:
            images = nn.functional.pad(images, (0, right, 0, below))
            mask = nn.functional.pad(mask, (0, right, 0, below), value=True)
        return images, mask
