"""A small store with two teachers whose worth is known, and its annotations."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from box_store import (
    Boxes,
    BoxStore,
    DatasetInfo,
    ImageRow,
    TeacherRecord,
    image_ids_sha256,
    load_coco,
)

N_IMAGES = 6


@dataclass(frozen=True)
class SmallStore:
    path: Path
    annotations: Path


def _record(name: str, ids: list[int], licence: str) -> TeacherRecord:
    return TeacherRecord(
        name=name,
        adapter="onnx",
        model=f"{name}.onnx",
        weights_sha256="0" * 64,
        licence=licence,
        class_map={"cat": 3, "dog": 7},
        options={"score_floor": 0.01},
        versions={},
        image_ids_sha256=image_ids_sha256(ids),
        unit_size=4,
        n_images=len(ids),
        n_units=2,
    )


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    """Six images with one object each: `oracle` finds all, `half` finds those of even images."""
    root = tmp_path_factory.mktemp("store")
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80}
        for i in range(1, N_IMAGES + 1)
    ]
    truth = [
        {
            "id": i,
            "image_id": i,
            "category_id": 3 if i % 2 else 7,
            "bbox": [10, 10, 40 + i, 40],
            "area": (40 + i) * 40,
            "iscrowd": 0,
        }
        for i in range(1, N_IMAGES + 1)
    ]
    annotations = root / "instances_val.json"
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    annotations.write_text(
        json.dumps({"images": images, "annotations": truth, "categories": categories})
    )
    coco = load_coco(annotations)
    store = BoxStore.create(
        root / "boxes", coco.categories, DatasetInfo("val", coco.sha256, N_IMAGES)
    )
    ids = list(coco.image_ids)
    for name, licence in (("oracle", "Apache-2.0"), ("half", "AGPL-3.0")):
        store.register(_record(name, ids, licence))
        for unit, start in enumerate((0, 4)):
            rows = []
            for image in coco.images[start : start + 4]:
                true = coco.annotations_of(image.id)
                kept = slice(None) if name == "oracle" or image.id % 2 == 0 else slice(0)
                boxes = Boxes(
                    true.boxes_xyxy[kept],
                    np.full(len(true.category_ids[kept]), 0.75, np.float32),
                    true.category_ids[kept],
                    image.width,
                    image.height,
                )
                rows.append(ImageRow(image.id, image.file_name, image.width, image.height, boxes))
            store.write_unit(name, unit, rows)
    return SmallStore(root / "boxes", annotations)
