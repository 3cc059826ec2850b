"""Which classes a student takes for which."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from box_store.boxes import Boxes
from box_store.calibration.matching import HIT, MISS, match_boxes
from box_store.coco.annotations import CocoData

BACKGROUND = "nothing"


@dataclass(frozen=True)
class Confusion:
    """Counts of pairs of an annotated class (row) and a detected one (column).

    The last row holds detections where nothing is annotated, the last column objects that nothing
    detected. Detections below `score` do not count; pairs overlap by an IoU of at least `iou`.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    score: float
    iou: float

    def to_json(self) -> dict[str, Any]:
        """Names, counts (a list a row), and the thresholds."""
        return {
            "names": list(self.names),
            "counts": self.counts.tolist(),
            "score": self.score,
            "iou": self.iou,
        }

    def worst(self, n: int) -> list[tuple[str, str, int]]:
        """The most frequent confusions of two classes: (annotated, detected, count)."""
        mixed = self.counts[:-1, :-1].copy()
        np.fill_diagonal(mixed, 0)
        order = np.argsort(-mixed, axis=None, kind="stable")[:n]
        pairs = [np.unravel_index(at, mixed.shape) for at in order]
        return [(self.names[a], self.names[b], int(mixed[a, b])) for a, b in pairs if mixed[a, b]]


def confusion_matrix(
    coco: CocoData,
    found: Iterable[tuple[int, Boxes]],
    image_ids: Collection[int],
    *,
    score: float = 0.3,
    iou: float = 0.5,
) -> Confusion:
    """Pair detections with annotations of any class, best scores first, and count the classes.

    found: ids of images and their boxes, `class_ids` being category ids. Crowds are left out; so
    are detections that lie in one.
    """
    ids = np.asarray(coco.categories.ids, np.int64)
    nothing = len(ids)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    by_image = dict(found)
    for image_id in image_ids:
        truth, image = coco.annotations_of(image_id), coco.by_id[image_id]
        boxes = by_image.get(image_id, Boxes.empty(image.width, image.height))
        boxes = boxes.above(score).sorted()
        matching = match_boxes(boxes, truth, iou, across_classes=True)
        rows = np.searchsorted(ids, truth.category_ids)
        columns = np.searchsorted(ids, boxes.class_ids)
        hit, miss = matching.outcome == HIT, matching.outcome == MISS
        of_object = matching.objects[hit]
        left = ~truth.iscrowd
        left[of_object] = False
        annotated = (rows[of_object], np.full(miss.sum(), nothing), rows[left])
        detected = (columns[hit], columns[miss], np.full(left.sum(), nothing))
        np.add.at(counts, (np.concatenate(annotated), np.concatenate(detected)), 1)
    names = (*coco.categories.names, BACKGROUND)
    return Confusion(names, counts, score, iou)
