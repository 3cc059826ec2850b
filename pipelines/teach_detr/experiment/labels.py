"""Training labels of an experiment: a sample of the images, some labels spoiled, some added.

Everything is drawn from seeds, image by image: which objects lose their label does not depend on
how many images there are, nor on the arm.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from box_store import Boxes, BoxStore, Selection, SelectionSpec, select
from box_store.boxes import pairwise_iou, to_xyxy
from teach_detr.experiment.config import Arm, Condition

Table = dict[str, Any]
_SAMPLE, _MISSING, _SWAPPED, _JITTER = range(4)


def sample_images(table: Table, n_images: int | None, seed: int) -> Table:
    """The COCO table cut to images drawn at random, in the order of the file; None keeps all."""
    images = table["images"]
    if n_images is None or n_images >= len(images):
        return table
    chosen = np.random.default_rng([seed, _SAMPLE]).permutation(len(images))[:n_images]
    kept = [images[i] for i in sorted(chosen.tolist())]
    ids = {image["id"] for image in kept}
    rows = [row for row in table["annotations"] if row["image_id"] in ids]
    return {**table, "images": kept, "annotations": rows}


def spoil_labels(table: Table, condition: Condition, seed: int) -> Table:
    """The COCO table with labels left out, classes swapped and boxes moved, as `condition` says.

    Boxes stay inside their image and at least one pixel wide and high. Crowd regions stay as they
    are.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in table["images"]}
    ids = [category["id"] for category in table["categories"]]
    rows = []
    for row in table["annotations"]:
        if row.get("iscrowd"):
            rows.append(row)
            continue
        # by the annotation's own id: what happens to one does not hang on the others
        key = [seed, int(row["image_id"]), int(row["id"])]
        if np.random.default_rng([*key, _MISSING]).random() < condition.missing:
            continue
        row = dict(row)
        swap = np.random.default_rng([*key, _SWAPPED])
        if swap.random() < condition.swapped and len(ids) > 1:
            others = [i for i in ids if i != row["category_id"]]
            row["category_id"] = others[int(swap.integers(len(others)))]
        if condition.jitter:
            noise = np.random.default_rng([*key, _JITTER]).normal(0, condition.jitter, 4)
            _set_box(row, _jitter(row["bbox"], noise.clip(-0.5, 0.5), sizes[row["image_id"]]))
        rows.append(row)
    return {**table, "annotations": rows}


def _jitter(bbox: Sequence[float], noise: np.ndarray, size: tuple[int, int]) -> list[float]:
    """Move the four sides of (x, y, w, h) in px by `noise` [4] times width or height."""
    x, y, w, h = bbox
    left, right = x + noise[0] * w, x + w + noise[2] * w
    top, bottom = y + noise[1] * h, y + h + noise[3] * h
    left, right = _inside(left, right, size[0])
    top, bottom = _inside(top, bottom, size[1])
    return [left, top, right - left, bottom - top]


def _inside(low: float, high: float, end: int) -> tuple[float, float]:
    low = float(np.clip(low, 0, end - 1))
    return low, float(np.clip(high, low + 1, end))


def _set_box(row: Table, bbox: Sequence[float]) -> None:
    row["bbox"] = [round(float(value), 2) for value in bbox]
    row["area"] = row["bbox"][2] * row["bbox"][3]
    # an outline would no longer belong to its box
    row.pop("segmentation", None)


def add_boxes(table: Table, found: Mapping[int, Sequence[Boxes]], iou: float) -> Table:
    """The COCO table with teachers' boxes, by image id, as further labels.

    A box is left out that overlaps a label of its class, or a box added before, by more than `iou`.
    """
    rows = list(table["annotations"])
    by_image: dict[int, list[Table]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
    next_id = max((int(row["id"]) for row in rows), default=0) + 1
    for image in table["images"]:
        known = by_image.setdefault(image["id"], [])
        for boxes in found.get(image["id"], ()):
            for corners, category in zip(
                boxes.boxes_xyxy.tolist(), boxes.class_ids.tolist(), strict=True
            ):
                row: Table = {"id": next_id, "image_id": image["id"], "iscrowd": 0}
                row["category_id"] = int(category)
                x0, y0, x1, y1 = corners
                _set_box(row, [x0, y0, x1 - x0, y1 - y0])
                same = [r["bbox"] for r in known if r["category_id"] == row["category_id"]]
                if (pairwise_iou(to_xyxy([row["bbox"]]), to_xyxy(same)) > iou).any():
                    continue
                known.append(row)
                rows.append(row)
                next_id += 1
    return {**table, "annotations": rows}


def merged_boxes(store: BoxStore, arm: Arm) -> dict[int, list[Boxes]]:
    """The boxes, by image id, that an arm adds to the labels."""
    names = None if arm.merge == "all" else tuple(name.strip() for name in arm.merge.split(","))
    spec = SelectionSpec(teachers=names, score_floor=arm.merge_floor)
    selection = Selection.open(select(store, spec))
    found: dict[int, list[Boxes]] = {}
    for name in selection.teachers:
        for image_id in selection.of(name).image_ids.tolist():
            boxes = selection.boxes(name, image_id)
            if boxes is not None and len(boxes):
                found.setdefault(image_id, []).append(boxes)
    return found
