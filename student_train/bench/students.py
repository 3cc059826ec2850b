"""A student of random weights: what is measured does not depend on what it learned."""

from __future__ import annotations

import torch

from box_store.categories import Categories, Category, ClassSpace
from box_store.coco.categories80 import COCO_CATEGORIES
from student_train.config import TrainConfig
from student_train.models import build_student
from student_train.runs.trained import TrainedStudent

# parameters that set a scale of all others
_KEPT = (".up", "reg_scale")


def random_student(config: TrainConfig, seed: int = 0) -> TrainedStudent:
    """In evaluation mode, every parameter moved off its start, where many are zero or one."""
    torch.manual_seed(seed)
    model = build_student(config.model).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.endswith(_KEPT):
                value += 0.02 * torch.randn_like(value)
    n_classes = config.model.n_classes
    # official files number COCO's classes by their ids
    kind = "contiguous" if n_classes == len(COCO_CATEGORIES) else "raw"
    space = ClassSpace(kind, COCO_CATEGORIES)
    if n_classes != space.n_classes:
        named = (Category(at, f"class {at}") for at in range(1, n_classes + 1))
        space = ClassSpace("contiguous", Categories(tuple(named)))
    return TrainedStudent(model, config, space, f"{config.preset} of random weights")
