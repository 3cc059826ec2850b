"""Boxes as detectors make them on photos as COCO has them: drawn, yet shaped like the real thing.

Objects an image, their sizes, classes, and how many the frame cuts follow what COCO's train2017
shows in a sample; a teacher finds most of the objects with small errors and high scores, and adds
many unsure boxes, half of them around an object. Coordinates are continuous.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.coco.categories80 import COCO_CATEGORIES
from box_store.store import schema
from box_store.store.records import ImageRow

COCO_IMAGES = 118_287
UNIT = 512
_OBJECTS = 7.3  # an image of COCO's train2017
_MOST = 300  # boxes a teacher keeps in an image
_FOUND = 0.8  # share of the objects that a teacher finds
_SIZES = np.array([(640, 480), (480, 640), (640, 427), (500, 375)])
_SIZE_SHARES = (0.5, 0.2, 0.2, 0.1)
_IDS = np.array([category.id for category in COCO_CATEGORIES.items], np.int32)
# more than a quarter are persons, the first of the classes
_CLASS_SHARES = 1 / (10 + np.arange(len(_IDS)))
_CLASS_SHARES[0] = 0.27 / 0.73 * _CLASS_SHARES[1:].sum()
_CLASS_SHARES /= _CLASS_SHARES.sum()


@dataclass(frozen=True)
class Law:
    """What is drawn: so many images, so many boxes of each teacher in an image on average."""

    n_images: int
    boxes_per_image: float = 56.4

    @property
    def n_units(self) -> int:
        """Units of a teacher."""
        return -(-self.n_images // UNIT)


@dataclass(frozen=True, eq=False)
class Scenes:
    """The images of one unit and the objects in them.

    image_ids [M]; sizes int [M, 2], width and height; owners [N], the image of each object, as a
    position; boxes_xyxy float64 [N, 4], pixels; category_ids [N].
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    owners: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    category_ids: NDArray[np.int32]


def scenes(law: Law, unit: int) -> Scenes:
    """The images of a unit; the same whenever they are asked for."""
    draw = np.random.default_rng([unit])
    ids = np.arange(unit * UNIT, min((unit + 1) * UNIT, law.n_images)) + 1
    sizes = _SIZES[draw.choice(len(_SIZES), len(ids), p=_SIZE_SHARES)]
    owners = np.repeat(np.arange(len(ids)), _counts(draw, _OBJECTS, len(ids)))
    boxes = _anywhere(draw, sizes[owners])
    classes = _IDS[draw.choice(len(_IDS), len(owners), p=_CLASS_SHARES)]
    return Scenes(ids, sizes, owners, boxes, classes)


def detections(law: Law, unit: int, teacher: int) -> list[ImageRow]:
    """What a teacher, known by its number, saw in the images of a unit."""
    seen = scenes(law, unit)
    draw = np.random.default_rng([unit, teacher + 1])
    found = np.flatnonzero(draw.random(len(seen.owners)) < _FOUND)
    unsure = max(law.boxes_per_image - _FOUND * _OBJECTS, 0)
    owners = np.repeat(np.arange(len(seen.sizes)), _counts(draw, unsure, len(seen.sizes)))
    boxes = _anywhere(draw, seen.sizes[owners])
    classes = _IDS[draw.choice(len(_IDS), len(owners), p=_CLASS_SHARES)]
    around = _some_object(draw, seen, owners)
    boxes[around >= 0] = _jittered(draw, seen.boxes_xyxy[around[around >= 0]], 0.3)
    classes[around >= 0] = seen.category_ids[around[around >= 0]]
    owners = np.concatenate([seen.owners[found], owners])
    boxes = np.concatenate([_jittered(draw, seen.boxes_xyxy[found], 0.04), boxes])
    classes = np.concatenate([seen.category_ids[found], classes])
    scores = np.concatenate(
        [draw.beta(4, 2, len(found)), 0.01 + 0.6 * draw.beta(0.6, 6, len(owners) - len(found))]
    )
    order = np.lexsort((-scores, owners))
    bounds = np.searchsorted(owners[order], np.arange(len(seen.sizes) + 1))
    rows = []
    for image, (image_id, (width, height)) in enumerate(
        zip(seen.image_ids.tolist(), seen.sizes.tolist(), strict=True)
    ):
        own = order[bounds[image] : min(bounds[image + 1], bounds[image] + _MOST)]
        kept = Boxes(
            boxes[own].astype(np.float32),
            scores[own].astype(np.float32),
            classes[own],
            width,
            height,
        )
        rows.append(ImageRow(image_id, _file_name(image_id), width, height, kept, seconds=0.05))
    return rows


def as_given(rows: list[ImageRow]) -> pa.Table:
    """The boxes of a unit with the columns of a store's file, not cut and not rounded."""
    boxes = [row.boxes for row in rows if row.boxes is not None]
    xyxy = np.concatenate([each.boxes_xyxy for each in boxes])
    columns = {
        "image_id": np.repeat([row.image_id for row in rows], [len(each) for each in boxes]),
        "category_id": np.concatenate([each.class_ids for each in boxes]),
        "score": np.concatenate([each.scores for each in boxes]),
        **{name: xyxy[:, column] for column, name in enumerate(("x1", "y1", "x2", "y2"))},
        "rank": np.concatenate([np.arange(len(each)) for each in boxes]),
    }
    n_boxes = len(columns["score"])
    splits = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_boxes, np.int16)), pa.array([""]))
    return pa.table(columns | {"split": splits}).cast(schema.BOXES)


def write_annotations(law: Law, path: Path) -> int:
    """The objects as a COCO annotation file; returns their number."""
    count = 0
    categories = json.dumps(COCO_CATEGORIES.to_json())
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"categories": {categories},\n"images": [')
        file.write(",\n".join(_image_entries(law)))
        file.write('],\n"annotations": [')
        for unit in range(law.n_units):
            seen = scenes(law, unit)
            entries = list(_object_entries(seen, count))
            file.write((",\n" if count and entries else "") + ",\n".join(entries))
            count += len(entries)
        file.write("]}\n")
    return count


def _image_entries(law: Law) -> Iterator[str]:
    for unit in range(law.n_units):
        seen = scenes(law, unit)
        for image_id, (width, height) in zip(seen.image_ids.tolist(), seen.sizes, strict=True):
            name = _file_name(image_id)
            yield f'{{"id":{image_id},"file_name":"{name}","width":{width},"height":{height}}}'


def _object_entries(seen: Scenes, count: int) -> Iterator[str]:
    ids = seen.image_ids[seen.owners].tolist()
    for key, (image_id, category_id, (x1, y1, x2, y2)) in enumerate(
        zip(ids, seen.category_ids.tolist(), seen.boxes_xyxy.tolist(), strict=True), count + 1
    ):
        box = f"[{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}]"
        yield (
            f'{{"id":{key},"image_id":{image_id},"category_id":{category_id},"iscrowd":0,'
            f'"bbox":{box}}}'
        )


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"


def _counts(draw: np.random.Generator, mean: float, n: int) -> NDArray[np.int64]:
    """Many images with few, few with many, as COCO's."""
    return draw.negative_binomial(1.0, 1 / (1 + mean), n)


def _anywhere(draw: np.random.Generator, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boxes in images of these sizes: log-normal sides around 55 pixels, one in six cut by the
    frame."""
    side = draw.lognormal(np.log(55), 1.1, len(sizes))
    slimness = draw.lognormal(0, 0.38, len(sizes))
    sides = np.stack([side * slimness, side / slimness], axis=1)
    sides = np.clip(sides, 4, 0.95 * sizes)
    low = draw.random((len(sizes), 2)) * (sizes - sides)
    # half of them may reach beyond the frame
    beyond = draw.random(len(sizes)) < 0.5
    low[beyond] = (draw.random((len(sizes), 2)) * sizes - sides / 2)[beyond]
    frame = np.tile(sizes, 2)
    return np.clip(np.concatenate([low, low + sides], axis=1), 0, frame)


def _some_object(
    draw: np.random.Generator, seen: Scenes, owners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For about half of the boxes an object of their image to lie around; -1 for the others."""
    first = np.searchsorted(seen.owners, np.arange(len(seen.sizes) + 1))
    there = (first[1:] - first[:-1])[owners]
    chosen = first[owners] + np.floor(draw.random(len(owners)) * there).astype(np.int64)
    return np.where((there > 0) & (draw.random(len(owners)) < 0.5), chosen, -1)


def _jittered(
    draw: np.random.Generator, boxes: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Every edge moved by about that share of the box's side, and still in order. What leaves the
    image is cut by the store."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return boxes + np.clip(draw.normal(0, share, boxes.shape), -0.45, 0.45) * sides
