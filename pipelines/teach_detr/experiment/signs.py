"""What tells harm sooner than AP does: the ground truth's own loss, and objects no query is near.

AP of a short training is a lottery; the loss on the annotations is steadier, and where a class is
starved of queries, its objects have no prediction near them, whatever the scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from box_store.boxes import pairwise_iou, to_xyxy
from student_train.runs.metrics import read_metrics

NEAR_IOU = 0.5
_TRUTH = ("class", "box", "giou")
_LAST = 0.1


def truth_loss(metrics: Path) -> float | None:
    """The ground truth's loss (class, box and GIoU of all layers), mean over the records of the
    last tenth of the steps, at least the last one; None without any.
    """
    if not metrics.exists():
        return None
    rows = [row for row in read_metrics(metrics) if row["kind"] == "train"]
    if not rows:
        return None
    start = (1 - _LAST) * rows[-1]["step"]
    last = [row for row in rows if row["step"] > start]
    return float(np.mean([sum(row["loss"][term] for term in _TRUTH) for row in last]))


def near_share(
    truth: Mapping[str, Any], results: Iterable[Mapping[str, Any]]
) -> dict[str, float | None]:
    """By class name, the share of objects with a prediction of any class at IoU 0.5 and more; None
    where there is no object.

    truth: a COCO table. results: COCO results of all queries, whatever their scores.
    """
    found: dict[int, list[Sequence[float]]] = {}
    for row in results:
        found.setdefault(row["image_id"], []).append(row["bbox"])
    corners = {image: to_xyxy(boxes) for image, boxes in found.items()}
    near: dict[int, list[bool]] = {}
    for row in truth["annotations"]:
        if row.get("iscrowd"):
            continue
        predicted = corners.get(row["image_id"])
        iou = 0.0 if predicted is None else pairwise_iou(predicted, to_xyxy([row["bbox"]])).max()
        near.setdefault(row["category_id"], []).append(bool(iou >= NEAR_IOU))
    return {
        each["name"]: float(np.mean(near[each["id"]])) if each["id"] in near else None
        for each in truth["categories"]
    }
