"""Small stores, made to order."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.boxes import Boxes
from box_store.categories import Categories, Category
from box_store.coco.annotations import ImageInfo
from box_store.store.records import (
    DatasetInfo,
    ImageRow,
    TeacherRecord,
    image_ids_sha256,
    split_units,
)
from box_store.store.store import BoxStore

CATEGORIES = Categories(
    (Category(1, "person"), Category(2, "bicycle"), Category(18, "dog"), Category(90, "toothbrush"))
)


class Maker:
    """Makes stores, records, rows and files for one test."""

    categories = CATEGORIES

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def images(self, n: int) -> list[ImageInfo]:
        return [ImageInfo(10 * i + 7, f"{10 * i + 7:012d}.jpg", 640, 480) for i in range(n)]

    def store(self, name: str = "store") -> BoxStore:
        return BoxStore.open_or_create(
            self.folder / name, self.categories, DatasetInfo("toy", "0" * 64, 6)
        )

    def record(self, name: str = "one", n_images: int = 6, unit_size: int = 2, **other: Any):
        values: dict[str, Any] = {
            "adapter": "onnx",
            "model": "toy.onnx",
            "weights_sha256": "a" * 64,
            "licence": "Apache-2.0",
            "class_map": {"person": 1, "cat": None},
            "options": {"score_floor": 0.05, "top_k": 100},
            "versions": {"onnxruntime": "1.0"},
        }
        return TeacherRecord(
            name=name,
            image_ids_sha256=image_ids_sha256(image.id for image in self.images(n_images)),
            unit_size=unit_size,
            n_images=n_images,
            n_units=-(-n_images // unit_size),
            **(values | other),
        )

    def boxes(self, seed: int, n: int = 5, width: int = 640, height: int = 480) -> Boxes:
        rng = np.random.default_rng(seed)
        corner = rng.uniform(0, [width - 8, height - 8], (n, 2))
        size = rng.uniform(4, 200, (n, 2))
        return Boxes(
            np.concatenate([corner, corner + size], axis=1),
            rng.uniform(0.01, 1, n),
            rng.choice(self.categories.ids, n),
            width,
            height,
        )

    def row(self, image: ImageInfo, boxes: Boxes | None = None, **other: Any) -> ImageRow:
        if boxes is None and other.get("status", "ok") == "ok":
            boxes = self.boxes(image.id)
        return ImageRow(image.id, image.file_name, image.width, image.height, boxes, **other)

    def fill(
        self,
        store: BoxStore,
        record: TeacherRecord,
        rows: Mapping[int, ImageRow] | None = None,
        units: Sequence[int] | None = None,
    ) -> None:
        """Register and write units; `rows` by image id replace the random ones."""
        store.register(record)
        parts = split_units(self.images(record.n_images), record.unit_size)
        for unit in range(len(parts)) if units is None else units:
            made = [(rows or {}).get(image.id) or self.row(image) for image in parts[unit]]
            assert store.write_unit(record.name, unit, made)

    def json_file(self, name: str, document: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(document))
        return path

    def annotations(self, n_images: int = 6, rows: Sequence[dict[str, Any]] = ()) -> Path:
        """A COCO file; `rows` may leave out id and area."""
        return self.json_file(
            "annotations.json",
            {
                "images": [
                    {"id": i.id, "file_name": i.file_name, "width": i.width, "height": i.height}
                    for i in self.images(n_images)
                ],
                "categories": self.categories.to_json(),
                "annotations": [{"id": k + 1, **row} for k, row in enumerate(rows)],
            },
        )


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture(scope="module")
def module_maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """For stores that the tests of a file only read."""
    return Maker(tmp_path_factory.mktemp("module"))


@pytest.fixture
def new_maker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Maker]:
    """For property tests, which need a fresh folder for every example."""
    return lambda: Maker(tmp_path_factory.mktemp("property"))
