"""Detections of a student as `Boxes` in category ids."""

from collections.abc import Sequence

import numpy as np

from box_store.boxes import Boxes
from box_store.categories import ClassSpace
from student_train.models import Detections


def to_boxes(
    found: Sequence[Detections], sizes: Sequence[Sequence[int]], space: ClassSpace
) -> list[Boxes]:
    """One `Boxes` an image: pixels of the original image, clipped, best first, category ids.

    `sizes` are (height, width). Logits that no category uses (raw COCO ids have gaps) are left out.
    """
    known = np.asarray(space.categories.ids, np.int32)
    boxes = []
    for each, (height, width) in zip(found, sizes, strict=True):
        labels = each.labels.cpu().numpy()
        inside = labels < space.n_classes
        ids = np.full(labels.shape, -1, np.int32)
        ids[inside] = space.to_category(labels[inside])
        detected = Boxes(
            each.boxes_xyxy.float().cpu().numpy(),
            each.scores.float().clamp(0, 1).cpu().numpy(),
            ids,
            width,
            height,
        )
        boxes.append(detected.take(np.isin(ids, known)).clipped())
    return boxes
