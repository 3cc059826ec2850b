"""AP of a set of detections over resampled images: what a bootstrap over images needs.

pycocotools matches detections to objects image by image; only then does it pool them over images.
So the matching is done once, and each resample counts image i w_i times in the pool: AP for weights
of 1 is pycocotools' own number, and for whole numbers that of a data set that repeats images.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from student_train.evaluation.coco_metrics import load_backend

_EPS = np.spacing(1)
# resamples at once: bounds memory, as [chunk, 10, detections of a class] is the largest array
_CHUNK = 32


@dataclass(frozen=True)
class _ClassMatches:
    """Detections of one class, by falling score: D of them, at T IoU thresholds."""

    image: NDArray[np.int64]  # [D], place of the image
    hit: NDArray[np.bool_]  # [T, D], matched to an object
    miss: NDArray[np.bool_]  # [T, D], matched to nothing; neither: matched to something ignored
    objects: NDArray[np.int64]  # [I], objects in each image


class Matches:
    """The detections of one run matched to the ground truth, ready to be pooled again and again."""

    def __init__(self, truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
        """`truth` is a COCO table as `read_annotations` gives it, `results` COCO results."""
        coco_class, evaluation_class = load_backend("pycocotools")
        with contextlib.redirect_stdout(io.StringIO()):
            known = coco_class()
            known.dataset = dict(truth)
            known.createIndex()
            found = known.loadRes(list(results)) if results else coco_class()
            evaluation = evaluation_class(known, found, iouType="bbox")
            evaluation.params.imgIds = sorted(int(image["id"]) for image in truth["images"])
            evaluation.params.catIds = sorted(int(c["id"]) for c in truth["categories"])
            evaluation.evaluate()
        self.image_ids: list[int] = evaluation.params.imgIds
        self._recall = np.asarray(evaluation.params.recThrs)
        n_areas, n_images = len(evaluation.params.areaRng), len(self.image_ids)
        limit = evaluation.params.maxDets[-1]
        self._classes: list[_ClassMatches] = []
        for k in range(len(evaluation.params.catIds)):
            # evalImgs is [class][area][image]; the first area is "all"
            start = k * n_areas * n_images
            per_image = evaluation.evalImgs[start : start + n_images]
            matches = _pool(per_image, limit, len(evaluation.params.iouThrs))
            if matches is not None:
                self._classes.append(matches)

    def ap(self, weights: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """AP, 0..1, for each resample.

        Args:
            weights: [R, I], how often each resample holds each image (in the order of `image_ids`);
                by default one resample that holds each once.

        Returns:
            [R]; NaN where a resample has no object at all.
        """
        if weights is None:
            weights = np.ones((1, len(self.image_ids)))
        chunks = [
            self._ap_chunk(np.asarray(weights[at : at + _CHUNK], np.float64))
            for at in range(0, len(weights), _CHUNK)
        ]
        return np.concatenate(chunks)

    def _ap_chunk(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(len(weights))
        n_classes = np.zeros(len(weights))
        for matches in self._classes:
            n_objects = weights @ matches.objects  # [R]
            defined = n_objects > 0
            precision = _mean_precision(matches, weights, n_objects, self._recall)
            total += np.where(defined, precision, 0)
            n_classes += defined
        with np.errstate(invalid="ignore"):
            return np.where(n_classes > 0, total / n_classes, np.nan)


def _pool(per_image: Sequence[Any], limit: int, n_thresholds: int) -> _ClassMatches | None:
    """One class over all images; None without any object or ignored one."""
    objects = np.zeros(len(per_image), np.int64)
    image: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    hit: list[np.ndarray] = []
    ignored: list[np.ndarray] = []
    for place, entry in enumerate(per_image):
        if entry is None:
            continue
        objects[place] = int((np.asarray(entry["gtIgnore"]) == 0).sum())
        found = np.asarray(entry["dtScores"])[:limit]
        image.append(np.full(len(found), place))
        scores.append(found)
        hit.append(np.asarray(entry["dtMatches"])[:, :limit] > 0)
        ignored.append(np.asarray(entry["dtIgnore"])[:, :limit] > 0)
    if not objects.any():
        return None
    # stable, as in pycocotools: equal scores stay in the order of images
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hits = np.concatenate(hit, 1)[:, order].reshape(n_thresholds, -1)
    counted = ~np.concatenate(ignored, 1)[:, order].reshape(n_thresholds, -1)
    return _ClassMatches(np.concatenate(image)[order], hits & counted, ~hits & counted, objects)


def _mean_precision(
    matches: _ClassMatches,
    weights: NDArray[np.float64],
    n_objects: NDArray[np.float64],
    recall_points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Precision of one class at 101 recalls, averaged over them and the IoU thresholds: [R]."""
    weight = weights[:, matches.image]  # [R, D]
    total = np.zeros(len(weights))
    for hit, miss in zip(matches.hit, matches.miss, strict=True):
        # precision is best at hits, and only there does recall rise
        at = np.flatnonzero(hit)
        hits = np.cumsum(weight[:, at], 1)  # [R, H]
        misses = np.cumsum(weight * miss, 1)[:, at]
        recall = hits / np.maximum(n_objects, 1)[:, None]
        precision = hits / (hits + misses + _EPS)
        # precision at a recall is the best at that recall or any higher one; past the end it is 0
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        reached = np.searchsorted(recall_points, recall, side="right")
        total += (np.diff(reached, axis=1, prepend=0) * best).sum(1)
    return total / (len(recall_points) * len(matches.hit))


def draw_images(n_images: int, n_resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each resample holds each image: [R, I], rows sum to I."""
    rng = np.random.default_rng([seed, 0])
    return rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_resamples)
