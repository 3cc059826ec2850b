"""A data set of coloured rectangles in COCO layout, and a box store whose teachers saw it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from box_store.boxes import Boxes
from box_store.coco.annotations import load_coco
from box_store.store.records import DatasetInfo, ImageRow, TeacherRecord, image_ids_sha256
from box_store.store.store import BoxStore

COLOURS = {2: ("red", (230, 40, 40)), 5: ("green", (40, 230, 40)), 9: ("blue", (40, 40, 230))}
WIDTH, HEIGHT = 80, 64


def write_split(root: Path, split: str, n_images: int, seed: int) -> None:
    """`n_images` noisy pictures with two rectangles each."""
    rng = np.random.default_rng(seed)
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, n_images + 1):
        pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        for _ in range(2):
            x, y = int(rng.integers(0, 45)), int(rng.integers(0, 32))
            w, h = (int(side) for side in rng.integers(16, 32, 2))
            category = int(rng.choice(list(COLOURS)))
            ImageDraw.Draw(picture).rectangle((x, y, x + w, y + h), fill=COLOURS[category][1])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        name = f"{image_id:03d}.png"
        picture.save(root / split / name)
        images.append({"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT})
    write_annotations(root, split, images, annotations)


def write_annotations(root: Path, split: str, images: list[Any], annotations: list[Any]) -> None:
    categories = [{"id": key, "name": name} for key, (name, _) in COLOURS.items()]
    table = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(table), encoding="utf-8")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 4 evaluation images; read only."""
    root = tmp_path_factory.mktemp("toy")
    write_split(root, "train2017", 12, seed=0)
    write_split(root, "val2017", 4, seed=1)
    return root


@pytest.fixture(scope="session")
def store(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teachers `sharp` (saw every image) and `late` (saw the first 6): shifted ground truth."""
    coco = load_coco(toy / "annotations" / "instances_train2017.json")
    path = tmp_path_factory.mktemp("boxes") / "store"
    boxes = BoxStore.create(path, coco.categories, DatasetInfo("toy", coco.sha256, 12))
    for name, n_images, shift in (("sharp", 12, 1.0), ("late", 6, 3.0)):
        images = coco.images[:n_images]
        boxes.register(
            TeacherRecord(
                name=name,
                adapter="onnx",
                model="toy",
                weights_sha256="a" * 64,
                licence="MIT" if name == "sharp" else "AGPL-3.0",
                class_map={},
                options={},
                image_ids_sha256=image_ids_sha256(image.id for image in images),
                unit_size=n_images,
                n_images=n_images,
                n_units=1,
            )
        )
        rows = []
        for image in images:
            truth = coco.annotations_of(image.id)
            found = Boxes(
                truth.boxes_xyxy + np.float32(shift),
                np.linspace(0.9, 0.4, len(truth)),
                truth.category_ids,
                image.width,
                image.height,
            )
            rows.append(
                ImageRow(image.id, image.file_name, image.width, image.height, found.clipped())
            )
        boxes.write_unit(name, 0, rows)
    return path
