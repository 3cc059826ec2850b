"""A teacher's boxes held against ground truth: which are right, before or after suppression.

A box is right when it finds an object of its class at an IoU of at least 0.5 by COCO's greedy rule
(`matching` beside this file). Calibration and the choice of settings both start from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.boxes import nms_keep, to_xyxy
from box_store.calibration.matching import HIT, IGNORED, BoxRows, match
from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.store.reader import read_boxes, read_images, xyxy_of
from box_store.store.store import BoxStore

# images that are judged in one go
_BLOCK = 2048


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
    table = read_boxes(store, teacher)
    table = table.filter(np.isin(table["image_id"].to_numpy(), image_ids))
    rows = np.searchsorted(image_ids, table["image_id"].to_numpy())
    order = np.lexsort((table["rank"].to_numpy(), rows))
    rows = rows[order]
    boxes, scores = xyxy_of(table)[order], table["score"].to_numpy()[order]
    category_ids = table["category_id"].to_numpy()[order]
    sides = _sides(seen, image_ids) if elsewhere else None
    bounds = np.searchsorted(rows, np.arange(len(image_ids) + 1))
    looked_at = np.arange(len(rows)) - bounds[rows] < (len(rows) if top_k is None else top_k)
    outcomes = np.full((len(nms_ious), len(rows)), IGNORED, np.int8)
    for start in range(0, len(image_ids), _BLOCK):
        numbers = np.arange(start, min(start + _BLOCK, len(image_ids)))
        first, end = bounds[start], bounds[numbers[-1] + 1]
        some = first + np.flatnonzero(looked_at[first:end])
        truth, iscrowd = _objects(coco, image_ids, numbers, sides)
        for outcome, threshold in zip(outcomes, nms_ious, strict=True):
            kept = some
            if threshold is not None:
                kept = some[nms_keep(boxes[some], category_ids[some], threshold, rows[some])]
            found = BoxRows(rows[kept], category_ids[kept], boxes[kept])
            outcome[kept] = match(found, truth, iscrowd, iou).outcome
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


def _sides(seen: pa.Table, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Width and height of some images that a teacher saw, int64 [M, 2]."""
    ids = seen["image_id"].to_numpy()
    order = np.argsort(ids)
    at = order[ids[order].searchsorted(image_ids)]
    columns = [seen[name].to_numpy()[at] for name in ("width", "height")]
    return np.stack(columns, axis=1).astype(np.int64)


def _objects(
    coco: CocoData,
    image_ids: NDArray[np.int64],
    numbers: NDArray[np.int64],
    sides: NDArray[np.int64] | None,
) -> tuple[BoxRows, NDArray[np.bool_]]:
    """The objects of the images with these places in `image_ids`, and which of them are crowds.

    sides: of all images, where the objects are to be those of the next one, as they would lie in an
    image of this size.
    """
    table = coco.table
    source = numbers if sides is None else (numbers + 1) % len(image_ids)
    places = table.places_of(image_ids[source])
    counts = np.diff(table.offsets)[places]
    owners = np.repeat(numbers, counts)
    rows = np.repeat(table.offsets[places] - np.cumsum(counts) + counts, counts)
    rows += np.arange(len(rows))
    boxes = table.boxes_xywh[rows]
    if sides is not None:
        factors = np.tile(sides[numbers] / sides[source], 2).astype(np.float32)
        boxes = boxes * np.repeat(factors, counts, axis=0)
    return BoxRows(owners, table.category_ids[rows], to_xyxy(boxes)), table.iscrowd[rows]
