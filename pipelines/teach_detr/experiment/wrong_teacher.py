"""A teacher that is wrong on purpose: another one's boxes, of which some were moved elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from box_store import Boxes, BoxStore, Selection, SelectionSpec, select
from box_store.results.exporting import write_results
from teach_detr.experiment.config import Wrong


def wrong_boxes(store: BoxStore, wrong: Wrong, seed: int) -> Iterator[tuple[int, Boxes]]:
    """Every box of the teacher `wrong.of` by image id, scores kept, `wrong.share` of them moved.

    Raises:
        UnknownTeacher: the store has no such teacher.
    """
    spec = SelectionSpec(teachers=(wrong.of,), score_floor=0.0)
    selection = Selection.open(select(store, spec))
    for image_id in selection.of(wrong.of).image_ids.tolist():
        boxes = selection.boxes(wrong.of, image_id)
        if boxes is not None and len(boxes):
            yield image_id, move_some(boxes, wrong, np.random.default_rng([seed, image_id]))


def move_some(boxes: Boxes, wrong: Wrong, rng: np.random.Generator) -> Boxes:
    """Shift a share of the boxes by parts of their size, each axis either way, kept inside the
    image by turning back where they would leave it.
    """
    corners = boxes.boxes_xyxy.astype(np.float64)
    size = corners[:, 2:] - corners[:, :2]
    low, high = wrong.shift
    shift = rng.uniform(low, high, size.shape) * rng.choice((-1.0, 1.0), size.shape) * size
    shift[rng.random(len(boxes)) >= wrong.share] = 0
    limit = np.asarray([boxes.width, boxes.height], np.float64)
    leaves = (corners[:, :2] + shift < 0) | (corners[:, 2:] + shift > limit)
    shift = np.where(leaves, -shift, shift)
    # a box too large to be moved either way ends at the border
    start = np.clip(corners[:, :2] + shift, 0, limit - 1)
    end = np.clip(corners[:, 2:] + shift, start + 1, limit)
    moved = np.concatenate([start, end], 1).astype(np.float32)
    return Boxes(moved, boxes.scores, boxes.class_ids, boxes.width, boxes.height)


def write_wrong(path: Path, store: BoxStore, wrong: Wrong, seed: int) -> None:
    """Write them as a COCO results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_results(path, wrong_boxes(store, wrong, seed))
