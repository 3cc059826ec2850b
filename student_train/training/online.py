"""Teachers in the training process: they look at the augmented images of every step.

Two kinds: the student's own average of weights (`ema`, a form of self-distillation), and an earlier
run, which stays as it is. Their boxes supervise like those of a box store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from box_store.categories import ClassSpace, check_same_categories
from box_store.places.locations import as_typed
from box_store.selection.selecting import no_off
from student_train.config import NO_TEACHERS, TeacherConfig
from student_train.data import Batch
from student_train.machine.runtime import Runtime
from student_train.models import Targets
from student_train.models.pixels import Pixels
from student_train.models.postprocess import best
from student_train.runs.trained import load_student

EMA = "ema"


@dataclass(frozen=True)
class OnlineTeacher:
    """A detector that labels batches."""

    model: nn.Module
    """in evaluation mode"""
    labels: Tensor | None
    """LongTensor, its logit index -> the student's; None where they are the same"""
    top_k: int
    score_floor: float
    nms_iou: float | None
    """class-wise suppression: the queries of a student repeat each other"""
    start: float
    """epoch before which it says nothing"""
    pixels: Pixels
    """how pixels are scaled for it, whatever they are for the student"""

    @torch.no_grad()
    def look(self, batch: Batch, epoch: float, runtime: Runtime) -> list[Targets | None]:
        """Its boxes in every image of a batch that lies on the device, None before it starts.

        An image without a box above the floor teaches nothing, not that there is nothing.
        """
        if epoch < self.start:
            return [None] * len(batch)
        with runtime.autocast():
            output = self.model(batch.images_for(self.pixels), batch.mask)
        scores, labels, corners = best(output, self.top_k)
        scores, corners = scores.float(), corners.float()
        if self.labels is not None:
            labels = self.labels[labels]
        low, high = corners.clamp(0, 1).split(2, -1)
        boxes = torch.cat(((low + high) / 2, high - low), -1)
        boxes = boxes.float()
        kept = (scores >= self.score_floor) & (labels >= 0) & (boxes[..., 2:] > 0).all(-1)
        found = []
        for i in range(len(batch)):
            rows = kept[i].nonzero()[:, 0]
            if self.nms_iou is not None:
                rows = rows[
                    batched_nms(corners[i][rows], scores[i][rows], labels[i][rows], self.nms_iou)
                ]
            found.append(Targets(labels[i][rows], boxes[i][rows], scores[i][rows], False))
        return found


def open_online(
    config: TeacherConfig, average: nn.Module | None, space: ClassSpace, runtime: Runtime
) -> dict[str, OnlineTeacher]:
    """The online teachers of a run, by name: `ema`, and the folder's name of every run.

    Raises:
        RunError, CheckpointError: no run there, or no weights in it.
        DataError: a run that was trained on other categories.
    """
    if config.names == NO_TEACHERS:
        return {}
    found: dict[str, OnlineTeacher] = {}
    for source in config.online:
        labels = None
        if source == EMA:
            assert average is not None
            model = average
        else:
            teacher = load_student(as_typed(Path(source)))
            check_same_categories(space.categories, teacher.class_space.categories, source)
            model = teacher.model.to(runtime.device).requires_grad_(False)
            labels = _translation(teacher.class_space, space).to(runtime.device)
        found[as_typed(Path(source)).name] = OnlineTeacher(
            model,
            labels,
            config.online_top_k,
            config.online_score_floor,
            no_off(config.nms_iou),
            config.online_start,
            model.config.pixels,  # type: ignore[union-attr]
        )
    return found


def look_all(
    teachers: Mapping[str, OnlineTeacher], batch: Batch, epoch: float, runtime: Runtime
) -> dict[str, list[Targets | None]]:
    """The boxes of a batch by teacher: those that came with it, then those of online teachers."""
    online = {name: each.look(batch, epoch, runtime) for name, each in teachers.items()}
    return {**batch.teachers, **online}


def _translation(theirs: ClassSpace, ours: ClassSpace) -> Tensor:
    """[logits of theirs], the index of the same category in ours; -1 where there is none."""
    ids = torch.tensor(theirs.categories.ids)
    table = torch.full((theirs.n_classes,), -1)
    table[torch.as_tensor(theirs.to_index(ids.numpy()))] = torch.as_tensor(
        ours.to_index(ids.numpy())
    )
    return table
