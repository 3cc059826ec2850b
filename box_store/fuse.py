"""Merging several teachers' boxes of one image into one set.

`nms` is the rule of the Teach-DETR authors' released code (LeonHLJ/Teach-DETR): class-wise
suppression over all teachers ranked by score + weight, then a quota. `soft_nms` lowers scores where
`nms` removes boxes (Bodla et al., ICCV 2017, linear). `wbf` is weighted boxes fusion (Solovyev,
Wang and Gabruseva, arXiv 1910.13302).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes, nms_keep, pairwise_iou
from box_store.errors import UsageError

DEFAULT_WEIGHT = 0.5


@dataclass(frozen=True)
class FusionConfig:
    """How to fuse.

    iou: overlap above which two boxes of a class are one object (0.2 in the released code; 0.55 is
    usual for `wbf`). weights: by teacher, 0.5 where not given; added to the score for the ranking
    of `nms` and `soft_nms`, multiplied with it in `wbf`. quota: keep only the first floor(boxes of
    all teachers / teachers that saw the image).
    """

    method: Literal["nms", "soft_nms", "wbf"] = "nms"
    iou: float = 0.2
    weights: Mapping[str, float] = field(default_factory=dict)
    quota: bool = True

    def __post_init__(self) -> None:
        if self.method not in ("nms", "soft_nms", "wbf"):
            raise UsageError(f"fusion is `nms`, `soft_nms` or `wbf`, got {self.method!r}")
        if not 0 <= self.iou <= 1:
            raise UsageError(f"the fusion IoU lies in 0..1, got {self.iou}")
        if any(not (np.isfinite(weight) and weight >= 0) for weight in self.weights.values()):
            raise UsageError(f"fusion weights are numbers from 0, got {dict(self.weights)}")
        if self.method == "wbf" and any(weight == 0 for weight in self.weights.values()):
            raise UsageError("a teacher of weight 0 has no say in `wbf`: leave it out instead")

    def weight(self, teacher: str) -> float:
        """The weight of a teacher."""
        return self.weights.get(teacher, DEFAULT_WEIGHT)


def fuse(by_teacher: Mapping[str, Boxes], config: FusionConfig) -> Boxes:
    """One set from the boxes of every teacher that saw the image, in order of preference.

    A teacher that saw nothing is passed with no boxes (it counts for the quota), one that never saw
    the image is not passed. Boxes are cut to the image first. `nms` returns original scores,
    `soft_nms` lowered and `wbf` fused ones. Raises UsageError where nobody saw the image or the
    sizes disagree.
    """
    if not by_teacher:
        raise UsageError("no teacher saw this image: there is nothing to fuse")
    sizes = {(boxes.width, boxes.height) for boxes in by_teacher.values()}
    if len(sizes) > 1:
        raise UsageError(f"the teachers disagree about the image's size: {sorted(sizes)}")
    clipped = {name: boxes.clipped() for name, boxes in by_teacher.items()}
    pool = Boxes.joined(list(clipped.values()))
    weights = np.repeat(
        [config.weight(name) for name in clipped], [len(boxes) for boxes in clipped.values()]
    )
    if config.method == "nms":
        fused = pool.take(
            survivors(pool.boxes_xyxy, pool.scores, pool.class_ids, weights, config.iou)
        )
    elif config.method == "soft_nms":
        fused = _lowered(pool, weights, config.iou)
    else:
        fused = _weighted_boxes(
            pool, weights, [config.weight(name) for name in clipped], config.iou
        )
    return (
        fused.take(np.arange(min(len(fused), len(pool) // len(clipped)))) if config.quota else fused
    )


def survivors(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    weights: NDArray[np.float64],
    iou: float,
    images: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Rows of the pooled boxes of all teachers that `nms` keeps, in order of preference.

    images: the image of each row, where there are several; rows then come image by image.
    """
    preference = -(scores + weights)
    ordered = np.lexsort((preference,) if images is None else (preference, images))
    of_image = None if images is None else images[ordered]
    return ordered[nms_keep(boxes_xyxy[ordered], class_ids[ordered], iou, of_image)]


def _lowered(pool: Boxes, weights: NDArray[np.float64], iou: float) -> Boxes:
    """All boxes by falling rank; each one taken multiplies the scores of those of its class that
    overlap it by more than `iou` with 1 - IoU.
    """
    scores = pool.scores.astype(np.float64)
    overlaps = pairwise_iou(pool.boxes_xyxy, pool.boxes_xyxy)
    rivals = (overlaps > iou) & (pool.class_ids[:, None] == pool.class_ids[None])
    left = np.ones(len(pool), bool)
    order: list[int] = []
    while left.any():
        best = int(np.where(left, scores + weights, -np.inf).argmax())
        left[best] = False
        order.append(best)
        lowered = left & rivals[best]
        scores[lowered] *= 1 - overlaps[best, lowered]
    taken = np.asarray(order, np.int64)
    return replace(pool.take(taken), scores=scores[taken].astype(np.float32))


def _weighted_boxes(
    pool: Boxes, weights: NDArray[np.float64], all_weights: list[float], iou: float
) -> Boxes:
    """Clusters around running weighted means; confidence averaged, then scaled by agreement."""
    confidence = pool.scores.astype(np.float64) * weights
    found_boxes: list[NDArray[np.float64]] = []
    found_scores: list[float] = []
    found_ids: list[int] = []
    for category in np.unique(pool.class_ids):
        rows = np.flatnonzero(pool.class_ids == category)
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        means = np.zeros((len(rows), 4))
        sums = np.zeros((len(rows), 4))
        totals = np.zeros(len(rows))
        members = np.zeros(len(rows), np.int64)
        n = 0
        for row in rows:
            box = pool.boxes_xyxy[row].astype(np.float64)
            overlaps = pairwise_iou(means[:n], box[None])[:, 0]
            best = int(overlaps.argmax()) if n else 0
            cluster = best if n and overlaps[best] > iou else n
            n = max(n, cluster + 1)
            sums[cluster] += confidence[row] * box
            totals[cluster] += confidence[row]
            members[cluster] += 1
            # a cluster of boxes that all score 0 has no weighted mean: its first box stands for it
            means[cluster] = sums[cluster] / totals[cluster] if totals[cluster] > 0 else box
        agreement = np.minimum(members[:n], len(all_weights)) / sum(all_weights)
        found_boxes += list(means[:n])
        found_scores += list(np.minimum(totals[:n] / members[:n] * agreement, 1.0))
        found_ids += [int(category)] * n
    if not found_boxes:
        return Boxes.empty(pool.width, pool.height)
    return Boxes(
        np.stack(found_boxes).astype(np.float32),
        np.asarray(found_scores, np.float32),
        np.asarray(found_ids, np.int32),
        pool.width,
        pool.height,
    ).sorted()
