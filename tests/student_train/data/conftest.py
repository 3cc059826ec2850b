"""A folder in COCO layout, and a selection of teacher boxes for it, small enough to read."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_store.categories import ClassSpace
from box_store.coco.annotations import CocoData, load_coco
from box_store.selection.file import TeacherBoxes, write_selection
from box_store.selection.selecting import Selection
from student_train.config import AugmentConfig

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 7, "name": "train"}]

# small enough for tests, with every branch of the augmentation
SMALL = AugmentConfig(
    short_sides=(32, 48, 64),
    long_side=96,
    crop_resize=(40, 60),
    crop_sides=(24, 48),
    eval_short_side=40,
    eval_long_side=60,
)


@dataclass
class Folder:
    """Images and annotations that are written when `coco` is called."""

    root: Path
    images: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)

    def add(
        self,
        name: str,
        size: tuple[int, int] = (60, 40),
        boxes: list[tuple[float, float, float, float]] = [],  # noqa: B006
        category: int = 3,
        crowd: bool = False,
        write: bool = True,
    ) -> int:
        """Add an image of (width, height) with boxes (x, y, w, h); its id."""
        image_id = 100 + len(self.images)
        width, height = size
        self.images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        self.annotate(image_id, boxes, category, crowd)
        if write:
            pixels = np.random.default_rng(image_id).integers(0, 255, (height, width, 3))
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        return image_id

    def annotate(self, image_id: int, boxes: list, category: int = 3, crowd: bool = False) -> None:
        for box in boxes:
            row = {"id": len(self.annotations) + 1, "image_id": image_id, "bbox": list(box)}
            row |= {"category_id": category, "iscrowd": int(crowd), "area": box[2] * box[3]}
            self.annotations.append(row)

    @property
    def coco(self) -> CocoData:
        path = self.root.parent / "annotations.json"
        document = {"images": self.images, "annotations": self.annotations}
        path.write_text(json.dumps(document | {"categories": CATEGORIES}))
        return load_coco(path)

    def space(self, kind: str = "raw") -> ClassSpace:
        return ClassSpace(kind, self.coco.categories)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "images"
    root.mkdir()
    return Folder(root)


Rows = dict[int, tuple[tuple[int, int], list[tuple[float, float, float, float, float, int]]]]


@pytest.fixture
def make_selection(tmp_path: Path) -> Callable[..., Selection]:
    """From keyword arguments TEACHER = {image id: ((width, height), [(x0, y0, x1, y1, s, id)])}."""

    def make(**teachers: Rows) -> Selection:
        path = tmp_path / "selection.arrow"
        found = []
        for name, rows in teachers.items():
            ids = sorted(rows)
            boxes = np.array([box for i in ids for box in rows[i][1]], np.float32).reshape(-1, 6)
            sizes = np.array([rows[i][0] for i in ids], np.int32).reshape(-1, 2)
            offsets = np.cumsum([0, *(len(rows[i][1]) for i in ids)]).astype(np.int64)
            found.append(
                (
                    name,
                    TeacherBoxes(
                        np.array(ids, np.int64),
                        sizes[:, 0],
                        sizes[:, 1],
                        offsets,
                        boxes[:, :4].copy(),
                        boxes[:, 4].copy(),
                        boxes[:, 5].astype(np.int32),
                    ),
                )
            )
        write_selection(path, {"teachers": list(teachers)}, found)
        return Selection.open(path)

    return make
