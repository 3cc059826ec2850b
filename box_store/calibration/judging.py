"""A teacher's boxes held against ground truth: which are right, before or after suppression.

A box is right when it finds an object of its class at an IoU of at least 0.5 by COCO's greedy rule
(`matching` beside this file). Calibration and the choice of settings both start from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes, nms_keep
from box_store.calibration.matching import HIT, IGNORED, match_boxes
from box_store.coco.annotations import Annotations, CocoData
from box_store.errors import DataError
from box_store.store.reader import read_boxes, read_images, xyxy_of
from box_store.store.store import BoxStore


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Boxes of one teacher in annotated images, those in crowds left out.

    image_ids: int64 [M], the images, with or without boxes. rows: int64 [N], each box's index into
    them; an image's boxes lie together, best first. scores: float32 [N]. hits: bool [N], whether
    the box is right. category_ids: int32 [N].
    """

    image_ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    hits: NDArray[np.bool_]
    category_ids: NDArray[np.int32]

    def of_images(self, chosen: NDArray[np.bool_]) -> "Judged":
        """What belongs to some of the images; chosen: bool [M]."""
        kept = chosen[self.rows]
        renumbered = np.cumsum(chosen) - 1
        return Judged(
            self.image_ids[chosen],
            renumbered[self.rows[kept]],
            self.scores[kept],
            self.hits[kept],
            self.category_ids[kept],
        )


def judge(
    store: BoxStore,
    teacher: str,
    coco: CocoData,
    *,
    iou: float = 0.5,
    nms_iou: float | None = None,
    max_images: int | None = None,
    seed: int = 0,
) -> Judged:
    """Compare a teacher's boxes with ground truth, in annotated images that it saw.

    nms_iou: after class-wise suppression at this IoU. max_images: at most so many images, drawn
    with `seed`. Raises DataError where it saw none.
    """
    return judge_each(store, teacher, coco, (nms_iou,), iou=iou, max_images=max_images, seed=seed)[
        0
    ]


def judge_each(
    store: BoxStore,
    teacher: str,
    coco: CocoData,
    nms_ious: Sequence[float | None],
    *,
    iou: float = 0.5,
    top_k: int | None = None,
    elsewhere: bool = False,
    max_images: int | None = None,
    seed: int = 0,
) -> list[Judged]:
    """The same after each of several suppressions (None: none), from one reading of the store.

    top_k: look at the best so many boxes of an image only, before suppression. elsewhere: compare
    with the annotations of the next image, stretched to this one, to learn how many boxes chance
    makes right. Raises DataError.
    """
    images = read_images(store, teacher, ["image_id", "width", "height", "status"])
    seen = images.filter(np.asarray(images["status"].to_numpy(zero_copy_only=False) == "ok"))
    image_ids = np.intersect1d(seen["image_id"].to_numpy(), coco.table.image_ids)
    if not len(image_ids):
        raise DataError(
            f"teacher {teacher} of {store.path} saw no image of {coco.path}: use annotations of a "
            "split that it was run over"
        )
    if max_images is not None and len(image_ids) > max_images:
        rng = np.random.default_rng(seed)
        image_ids = np.sort(rng.choice(image_ids, max_images, replace=False))
    sizes = dict(
        zip(
            seen["image_id"].to_pylist(),
            zip(seen["width"].to_pylist(), seen["height"].to_pylist(), strict=True),
            strict=True,
        )
    )
    table = read_boxes(store, teacher)
    table = table.filter(np.isin(table["image_id"].to_numpy(), image_ids))
    rows = np.searchsorted(image_ids, table["image_id"].to_numpy())
    order = np.lexsort((table["rank"].to_numpy(), rows))
    rows = rows[order]
    boxes, scores = xyxy_of(table)[order], table["score"].to_numpy()[order]
    category_ids = table["category_id"].to_numpy()[order]
    bounds = np.searchsorted(rows, np.arange(len(image_ids) + 1)).tolist()
    outcomes = np.full((len(nms_ious), len(rows)), IGNORED, np.int8)
    for at, image_id in enumerate(image_ids.tolist()):
        first, end = bounds[at], bounds[at + 1]
        span = slice(first, end if top_k is None else min(end, first + top_k))
        found = Boxes.unchecked(boxes[span], scores[span], category_ids[span], *sizes[image_id])
        if elsewhere:
            other = image_ids[(at + 1) % len(image_ids)].item()
            truth = _stretched(coco.annotations_of(other), sizes[other], sizes[image_id])
        else:
            truth = coco.annotations_of(image_id)
        for outcome, threshold in zip(outcomes, nms_ious, strict=True):
            if threshold is None:
                outcome[span] = match_boxes(found, truth, iou).outcome
                continue
            kept = nms_keep(found.boxes_xyxy, found.class_ids, threshold)
            outcome[first + kept] = match_boxes(found.take(kept), truth, iou).outcome
    return [
        Judged(
            image_ids,
            rows[counts],
            scores[counts],
            outcome[counts] == HIT,
            category_ids[counts],
        )
        for outcome in outcomes
        for counts in (outcome != IGNORED,)
    ]


def _stretched(truth: Annotations, size: tuple[int, int], to: tuple[int, int]) -> Annotations:
    """Annotations of an image of one (width, height) as they would lie in another."""
    factors = np.asarray([to[0] / size[0], to[1] / size[1]] * 2, np.float32)
    return replace(truth, boxes_xywh=truth.boxes_xywh * factors)
