"""Which classes a student takes for which."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    image_ids: set[int],
    *,
    score: float = 0.3,
    iou: float = 0.5,
) -> Confusion:
    """Pair detections with annotations of any class, best scores first, and count the classes.

    `annotations` and `results` are COCO's (boxes x, y, w, h in pixels). Crowds are left out; so are
    detections that lie in one.
    """
    categories = sorted(annotations["categories"], key=lambda row: int(row["id"]))
    index = {int(row["id"]): at for at, row in enumerate(categories)}
    nothing = len(categories)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    truth, found = _by_image(annotations["annotations"]), _by_image(results)
    for image_id in sorted(image_ids):
        detected = [row for row in found[image_id] if float(row["score"]) >= score]
        detected.sort(key=lambda row: -float(row["score"]))
        objects = [row for row in truth[image_id] if not row.get("iscrowd")]
        crowds = [row for row in truth[image_id] if row.get("iscrowd")]
        overlaps = _iou(_boxes(detected), _boxes(objects))
        inside = _covered(_boxes(detected), _boxes(crowds))
        free = np.ones(len(objects), bool)
        for at, row in enumerate(detected):
            column = index[int(row["category_id"])]
            candidates = np.where(free, overlaps[at], -1.0)
            # of objects that overlap enough, one of the same class is meant before a nearer other
            same = np.array([index[int(o["category_id"])] == column for o in objects], bool)
            enough = candidates >= iou
            if (enough & same).any():
                candidates = np.where(same, candidates, -1.0)
            if len(objects) and candidates.max() >= iou:
                best = int(candidates.argmax())
                free[best] = False
                counts[index[int(objects[best]["category_id"])], column] += 1
            elif inside[at] < iou:
                counts[nothing, column] += 1
        for at in np.flatnonzero(free):
            counts[index[int(objects[at]["category_id"])], nothing] += 1
    names = (*(str(row["name"]) for row in categories), BACKGROUND)
    return Confusion(names, counts, score, iou)


def _by_image(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    grouped: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[int(row["image_id"])].append(row)
    return grouped


def _boxes(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[N, 4] corners."""
    boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clip(min=0).prod(-1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, M]."""
    both = _intersection(a, b)
    return both / np.maximum(_area(a)[:, None] + _area(b) - both, 1e-9)


def _covered(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """The share of each box that lies in one crowd region, [N]; 0 without crowds."""
    if not len(crowds):
        return np.zeros(len(boxes))
    return (_intersection(boxes, crowds) / np.maximum(_area(boxes), 1e-9)[:, None]).max(1)
