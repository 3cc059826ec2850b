"""A student as an exported ONNX file holds it: the file says everything that its use needs."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

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
BYTES = "bytes"
"""what the card says of a file that takes photos as they are"""
PHOTOS = "images"
"""the one input of such a file"""
OUTPUTS = ("scores", "labels", "boxes")

Feeds = Mapping[str, np.ndarray]
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
    inputs = {one.name: one.shape for one in session.get_inputs()}
    names = list(OUTPUTS)

    def run(feeds: Feeds) -> Feeds:
        try:
            return dict(zip(names, session.run(names, feeds), strict=True))
        except Exception as error:  # onnxruntime's own exceptions share no narrower base
            shapes = {name: list(value.shape) for name, value in feeds.items()}
            raise ExportError(
                f"{path}: onnxruntime failed on inputs of {shapes}: {error}"
            ) from error

    missing = sorted({INPUTS[0]} - inputs.keys())
    missing += sorted(set(names) - {one.name for one in session.get_outputs()})
    if missing:
        raise ExportError(
            f"{path} says that it is a student's, but has no {', '.join(missing)}: it was changed "
            "by another tool; export it again"
        )
    return student_of_card(path, about[CARD], inputs[INPUTS[0]], run)


def student_of_card(
    path: Path, card: str, shape: Sequence[object], run: Callable[[Feeds], Feeds]
) -> TrainedStudent:
    """The student that a file's card describes; `run` computes it, `shape` is that of its images.

    Raises:
        ExportError: the card is damaged.
    """
    try:
        told = json.loads(card)
        config = from_plain({"model": told["model"], "augment": told["augment"]}, str(path))
        space = class_space_from_plain(told["classes"])
        takes_photos = told.get("input") == BYTES
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ExportError(f"{path}: its metadata cannot be read: {error}") from error
    if takes_photos:
        model = PhotoStudent(run, (shape[0], 3, None, None), config.model, path)
    else:
        model = FileStudent(run, shape, config.model, path)
    return TrainedStudent(model.eval(), config, space, str(path), resizes=takes_photos)  # type: ignore[arg-type]


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
        sides = [side if isinstance(side, int) else None for side in shape]
        self.n_fixed = sides[0]
        """how many images it takes at a time; None: any number"""
        self.canvas = (sides[2], sides[3])
        """height and width that it takes, None where any"""

    def forward(self, images: Tensor, mask: Tensor) -> Selected:
        """As `Student.forward`; a file of one size sees smaller images in its upper left corner.

        Raises:
            ExportError: images are larger than the file's size.
        """
        parts = []
        at = 0
        for fed in self.feeds(images, mask):
            found = self._program(fed)
            n_images = min(len(images) - at, self.n_fixed or len(next(iter(fed.values()))))
            parts.append([torch.from_numpy(found[name])[:n_images] for name in OUTPUTS])
            at += n_images
        # files of free sizes may find fewer in a small image
        most = max(each[0].shape[1] for each in parts)
        parts = [[_filled(value, most) for value in each] for each in parts]
        return Selected(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def run_by(self, program: Callable[[Feeds], Feeds]) -> Self:
        """The same, run by another runtime."""
        other = copy.copy(self)
        other._program = program
        return other

    def feeds(self, images: Tensor, mask: Tensor) -> list[Feeds]:
        """A batch as inputs of the file, several where it takes fewer images at a time."""
        images, mask = self._on_canvas(images.cpu(), mask.cpu())
        step = self.n_fixed or len(images)
        return [
            self._fed(images[at : at + step], mask[at : at + step])
            for at in range(0, len(images), step)
        ]

    def _fed(self, images: Tensor, mask: Tensor) -> Feeds:
        images, mask = _full(images, self.n_fixed), _full(mask, self.n_fixed)
        return {INPUTS[0]: np.ascontiguousarray(images.numpy()), INPUTS[1]: mask.numpy()}

    def _on_canvas(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        missing = []
        for side, wanted in zip(images.shape[2:], self.canvas, strict=True):
            missing.append(0 if wanted is None else wanted - side)
        if min(missing) < 0:
            height, width = self.canvas
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


class PhotoStudent(FileStudent):
    """A file that takes photos as they are. What comes here is a padded batch of them, scaled as
    for any student, and is made bytes again.
    """

    def feeds(self, images: Tensor, mask: Tensor) -> list[Feeds]:
        """One input of the file an image, as all images of one have to have one size."""
        mean, deviation = (
            torch.tensor(each)[:, None, None] * 255
            for each in (self.config.pixels.mean, self.config.pixels.deviation)
        )
        fed = []
        for image, padding in zip(images.cpu(), mask.cpu(), strict=True):
            height, width = int((~padding).any(1).sum()), int((~padding).any(0).sum())
            whole = image[:, :height, :width] * deviation + mean
            photo = whole.round().to(torch.uint8).permute(1, 2, 0)[None]
            fed.append({PHOTOS: np.ascontiguousarray(_full(photo, self.n_fixed).numpy())})
        return fed


def _full(batch: Tensor, n_wanted: int | None) -> Tensor:
    """A file of a fixed batch gets its last image again until the batch is full."""
    if n_wanted is None or n_wanted == len(batch):
        return batch
    return batch[torch.arange(n_wanted).clamp(max=len(batch) - 1)]


def _filled(found: Tensor, most: int) -> Tensor:
    """[B, K, ...] with detections of score 0 up to `most`."""
    missing = most - found.shape[1]
    return torch.cat([found, found.new_zeros(len(found), missing, *found.shape[2:])], 1)
