"""A trained student as a function from images to boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from box_store.boxes import Boxes
from box_store.categories import Categories, ClassSpace
from box_store.errors import UsageError
from box_store.locations import RemotePath, as_typed, staged
from student_train.checkpoint import load_matching, load_weights
from student_train.config import TrainConfig, from_plain
from student_train.data import EvalTransform, Sample, Scene, collate
from student_train.data.loader import Batch
from student_train.detections import to_boxes
from student_train.errors import CheckpointError, RunError
from student_train.models import Targets, build_student, top_k
from student_train.run_folder import SavedRun, class_space_from_plain
from student_train.runtime import Runtime
from student_train.states import SavedStates, state_weights


@dataclass(frozen=True)
class TrainedStudent:
    """A model with its weights, and what is needed to read its output."""

    model: nn.Module
    config: TrainConfig
    class_space: ClassSpace
    origin: str
    """which weights these are, for people"""


def check_weights_name(weights: str) -> None:
    """Refuse anything but best and last."""
    if weights not in ("best", "last"):
        raise UsageError(f"--weights is best or last, got {weights!r}")


def load_student(run: Path | RemotePath, weights: str = "best") -> TrainedStudent:
    """A student on the CPU, in evaluation mode.

    Args:
        run: a run folder, or a `.safetensors` file written by a run; a path or a URL.
        weights: which of a run folder: best (by AP on the evaluation split) or last.

    Raises:
        RunError: there is no such run, or it has no such weights yet.
        CheckpointError: the file is damaged or foreign.
    """
    run = as_typed(run)
    if run.is_file():
        tensors, about = load_weights(staged(run))
        if "config" not in about or "classes" not in about:
            raise CheckpointError(
                f"{run} does not say which student it belongs to: expected a file written by "
                "student-train; official checkpoints go through `student-train train --init`"
            )
        space = class_space_from_plain(about["classes"])
        config, origin = from_plain(about["config"], str(run)), str(run)
    else:
        folder = SavedRun(run)
        record = folder.read()
        config, space = record.config, record.class_space
        if weights == "last":
            state, note = SavedStates(folder.checkpoints).load()
            tensors = state_weights(state)
            origin = f"step {state['position']['step']} of {folder.root} {note}".strip()
        elif folder.best.exists():
            tensors, _ = load_weights(staged(folder.best))
            origin = str(folder.best)
        else:
            raise RunError(
                f"{run} has no best.safetensors yet: it is written after the first evaluation; "
                "--weights last takes the last saved state"
            )
    # the trained backbone is among the tensors: its file of pretrained weights is not needed again
    model = build_student(replace(config.model, backbone_weights=None))
    report = load_matching(model, tensors)
    if report.missing or report.other_shape:
        raise CheckpointError(f"{origin} does not fit its own configuration: {report.describe()}")
    return TrainedStudent(model.eval(), config, space, origin)


class Predictor:
    """Detects in images of any size.

    `class_names` are those of the data set's categories, ordered by id; what `predict` returns are
    indices into them.
    """

    def __init__(self, student: TrainedStudent, runtime: Runtime) -> None:
        self.student = student
        self.runtime = runtime
        self.class_names: tuple[str, ...] = student.class_space.categories.names
        self._model = student.model.to(runtime.device)
        self._transform = EvalTransform(student.config.augment)

    @property
    def categories(self) -> Categories:
        """The data set's category table."""
        return self.student.class_space.categories

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Boxes of each image, best first, in its own pixels; `class_ids` index `class_names`.

        Args:
            images: each [H, W, 3], uint8, RGB.
        """
        if not images:
            return []
        batch = self._batch(images).to(self.runtime.device)
        with self.runtime.autocast():
            output = self._model(batch.images, batch.mask)
        found = top_k(output, batch.original_sizes, self.student.config.model.top_k)
        sizes = [image.shape[:2] for image in images]
        ids = np.asarray(self.categories.ids, np.int64)
        return [
            replace(boxes, class_ids=np.searchsorted(ids, boxes.class_ids))
            for boxes in to_boxes(found, sizes, self.student.class_space)
        ]

    def _batch(self, images: Sequence[np.ndarray]) -> Batch:
        # the evaluation transform draws no random numbers
        generator = torch.Generator()
        nothing = Targets.truth(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
        samples = []
        for index, image in enumerate(images):
            pixels = torch.tensor(image).permute(2, 0, 1)
            scene = self._transform(Scene.start(pixels, torch.zeros(0, 4)), generator)
            height, width = image.shape[:2]
            samples.append(Sample(scene.image, nothing, {}, index, (height, width)))
        return collate(samples)


def load_predictor(
    run: Path | RemotePath, device: str = "auto", weights: str = "best"
) -> Predictor:
    """A predictor from a run folder or a `.safetensors` file; see `load_student` for the errors."""
    return Predictor(load_student(run, weights), Runtime.start(device))


def as_rows(boxes: Boxes, categories: Categories) -> list[dict[str, Any]]:
    """A predictor's boxes for JSON: category, category_id, score, bbox as x, y, w, h in pixels."""
    return [
        {
            "category": categories.items[index].name,
            "category_id": categories.items[index].id,
            "score": round(score, 5),
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
        }
        for (x1, y1, x2, y2), score, index in zip(
            boxes.boxes_xyxy.tolist(),
            boxes.scores.tolist(),
            boxes.class_ids.tolist(),
            strict=True,
        )
    ]
