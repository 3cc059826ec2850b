"""Which detections are right: COCO's greedy matching of one image's boxes to its ground truth.

The rule of pycocotools' `COCOeval.evaluateImg` for all sizes of objects: boxes choose in the order
of their scores, each the free object of its class that it overlaps most.
"""

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes, iou_of
from box_store.coco.annotations import Annotations

HIT, MISS, IGNORED = 1, 0, -1


def match_boxes(boxes: Boxes, truth: Annotations, iou: float) -> NDArray[np.int8]:
    """The outcome of each box, int8 [N]: HIT, MISS, or IGNORED inside a crowd.

    boxes: best first, `class_ids` being category ids. truth: of the same image. A box hits the free
    object of its class with the largest IoU of at least `iou`; an object is taken once. A box that
    finds none, and of whose area at least `iou` lies in a crowd of its class, counts neither way.
    """
    outcome = np.zeros(len(boxes), np.int8)
    if not len(boxes) or not len(truth):
        return outcome
    same = boxes.class_ids[:, None] == truth.category_ids[None]
    crowd = truth.iscrowd
    overlaps = np.zeros(same.shape)
    pairs = np.nonzero(same)
    overlaps[pairs] = iou_of(boxes.boxes_xyxy[pairs[0]], truth.boxes_xyxy[pairs[1]])
    if crowd.any():
        overlaps[:, crowd] = np.where(same[:, crowd], _share_inside(boxes, truth), 0)
    # as pycocotools: an IoU of exactly 1 still counts where 1 is asked for
    wanted = overlaps >= min(iou, 1 - 1e-10)
    outcome[wanted[:, crowd].any(axis=1)] = IGNORED
    free = ~crowd
    for row in np.flatnonzero(wanted[:, free].any(axis=1)):
        found = np.flatnonzero(wanted[row] & free)
        if len(found):
            # of equal overlaps the last, as pycocotools
            best = found[::-1][overlaps[row, found[::-1]].argmax()]
            free[best] = False
            outcome[row] = HIT
    return outcome


def _share_inside(boxes: Boxes, truth: Annotations) -> NDArray[np.float64]:
    """The share of each box's area inside each crowd, float64 [N, crowds]."""
    box = boxes.boxes_xyxy.astype(np.float64)[:, None]
    crowd = truth.boxes_xyxy[truth.iscrowd].astype(np.float64)[None]
    sides = np.clip(
        np.minimum(box[..., 2:], crowd[..., 2:]) - np.maximum(box[..., :2], crowd[..., :2]), 0, None
    )
    area = np.prod(box[..., 2:] - box[..., :2], axis=-1)
    return np.divide(sides.prod(axis=-1), area, out=np.zeros(sides.shape[:2]), where=area > 0)
