"""Which detections are right: COCO's greedy matching of boxes to the ground truth of their image.

The rule of pycocotools' `COCOeval.evaluateImg` for all sizes of objects: boxes choose in the order
of their scores, each the free object of its class that it overlaps most. Everything that says hit
or miss asks here: calibration, what is chosen of teachers, SQL, confusions, figures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from box_store.boxes import Boxes, iou_of, share_inside
from box_store.coco.annotations import Annotations

HIT, MISS, IGNORED = 1, 0, -1


@dataclass(frozen=True, slots=True, eq=False)
class BoxRows:
    """Boxes of one image or of many, one after the other.

    images: int64 [N], from 0, the image of each. class_ids: int [N]. boxes_xyxy: [N, 4], pixels.
    """

    images: NDArray[np.int64]
    class_ids: NDArray[np.integer]
    boxes_xyxy: NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """What became of each box.

    outcome: int8 [N], HIT, MISS, or IGNORED inside a crowd. objects: int64 [N], the row of the
    truth that a hit found; of a miss that lies on objects which better boxes took, a duplicate, the
    one that it overlaps most; -1 for any other. overlaps: float64 [N], the IoU with that object.
    """

    outcome: NDArray[np.int8]
    objects: NDArray[np.int64]
    overlaps: NDArray[np.float64]


def match_boxes(
    boxes: Boxes, truth: Annotations, iou: float, *, across_classes: bool = False
) -> Matching:
    """Match the boxes of one image, best first, `class_ids` being category ids; see `match`."""
    return match(
        BoxRows(np.zeros(len(boxes), np.int64), boxes.class_ids, boxes.boxes_xyxy),
        BoxRows(np.zeros(len(truth), np.int64), truth.category_ids, truth.boxes_xyxy),
        truth.iscrowd,
        iou,
        across_classes=across_classes,
    )


def match(
    boxes: BoxRows,
    truth: BoxRows,
    iscrowd: NDArray[np.bool_],
    iou: float,
    *,
    across_classes: bool = False,
) -> Matching:
    """Match boxes, best first in each image, with the objects of their images.

    A box hits the free object of its class with the largest IoU of at least `iou`; an object is
    taken once. A box that finds none, and of whose area at least `iou` lies in a crowd of its
    class, counts neither way. iscrowd: bool [M]. across_classes: objects of other classes are found
    too, and crowds of any class count, but one of its own class is meant before a nearer other.
    """
    n_boxes = len(boxes.images)
    box, target = _pairs(boxes, truth, across_classes)
    crowd = iscrowd[target]
    overlap = np.empty(len(box))
    for chosen, measure in ((~crowd, iou_of), (crowd, share_inside)):
        first, second = boxes.boxes_xyxy[box[chosen]], truth.boxes_xyxy[target[chosen]]
        overlap[chosen] = measure(first, second)
    # as pycocotools: an IoU of exactly 1 still counts where 1 is asked for
    enough = overlap >= min(iou, 1 - 1e-10)
    outcome = np.zeros(n_boxes, np.int8)
    outcome[box[enough & crowd]] = IGNORED
    wanted = enough & ~crowd
    box, target, overlap = box[wanted], target[wanted], overlap[wanted]
    other = boxes.class_ids[box] != truth.class_ids[target]
    # of equal overlaps the last, as pycocotools
    order = np.lexsort((-target, -overlap, other, box))
    box, target, overlap = box[order], target[order], overlap[order]
    # what each box would like best, until it is known what it gets
    found = np.searchsorted(box, np.arange(n_boxes + 1))
    found, has_any = found[:-1], np.diff(found) > 0
    taken = _serial_choice(box, target, n_boxes, len(truth.images))
    found = np.where(taken >= 0, taken, found)
    outcome[taken >= 0] = HIT
    named = has_any & (outcome != IGNORED)
    objects, overlaps = np.full(n_boxes, -1, np.int64), np.zeros(n_boxes)
    objects[named], overlaps[named] = target[found[named]], overlap[found[named]]
    return Matching(outcome, objects, overlaps)


def _pairs(
    boxes: BoxRows, truth: BoxRows, across_classes: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of every box and every object of its image, and of its class, that meet."""
    ours, theirs = (
        rows.images if across_classes else (rows.images << 32) + rows.class_ids
        for rows in (boxes, truth)
    )
    order = np.argsort(theirs, kind="stable")
    first, end = (np.searchsorted(theirs[order], ours, side=side) for side in ("left", "right"))
    counts = end - first
    box = np.repeat(np.arange(len(ours)), counts)
    within = np.arange(len(box)) - np.repeat(np.cumsum(counts) - counts, counts)
    return box, order[np.repeat(first, counts) + within]


def _serial_choice(
    box: NDArray[np.int64], target: NDArray[np.int64], n_boxes: int, n_objects: int
) -> NDArray[np.int64]:
    """The pair that each box gets, int64 [n_boxes], -1 for none, where boxes choose one by one.

    box, target: pairs by box, each one's in the order in which it likes them. Instead of one after
    the other all ask at once, and an object keeps the first box of those that ask: as all objects
    rank boxes alike, deferred acceptance (Gale and Shapley 1962) ends in the same choice.
    """
    bounds = np.searchsorted(box, np.arange(n_boxes + 1))
    asked, end = bounds[:-1].copy(), bounds[1:]
    holder = np.full(n_objects, n_boxes, np.int64)
    asking = np.flatnonzero(asked < end)
    while len(asking):
        at = target[asked[asking]]
        before = holder[np.unique(at)]
        np.minimum.at(holder, at, asking)
        refused = asking[holder[at] != asking]
        displaced = before[before < n_boxes]
        displaced = displaced[holder[target[asked[displaced]]] != displaced]
        turned_away = np.concatenate([refused, displaced])
        asked[turned_away] += 1
        asking = turned_away[asked[turned_away] < end[turned_away]]
    got = np.full(n_boxes, -1, np.int64)
    held = holder[holder < n_boxes]
    got[held] = asked[held]
    return got
