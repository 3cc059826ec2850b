"""One small data set, written in every form that is read."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from box_store.forms.opening import DataSet, open_data

CLASSES = ("car", "dog", "person")
SIZE = (80, 60)
# whole corners that touch the border: (class, x1, y1, x2, y2) in pixels, from 0
BOXES: dict[str, list[tuple[str, int, int, int, int]]] = {
    "a.jpg": [("dog", 0, 0, 20, 30), ("car", 40, 10, 80, 60)],
    "b.jpg": [("person", 8, 12, 40, 36)],
    "c.jpg": [("dog", 10, 6, 30, 48), ("dog", 0, 30, 40, 60), ("car", 20, 0, 60, 12)],
}
TRAIN, VAL = ("a.jpg", "c.jpg"), ("b.jpg",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEACH_DETR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@dataclass
class Builder:
    """Writes the data set below `root`."""

    root: Path

    def image(self, path: str, size: tuple[int, int] = SIZE) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(path)).integers(0, 255, (*size[::-1], 3), np.uint8)
        Image.fromarray(noise).save(target)
        return target

    def text(self, path: str, text: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def json(self, path: str, document: Any) -> Path:
        return self.text(path, json.dumps(document))

    def coco(self, names: tuple[str, ...], prefix: str = "", **changes: Any) -> dict[str, Any]:
        images = [
            {"id": i, "file_name": prefix + name, "width": SIZE[0], "height": SIZE[1]}
            for i, name in enumerate(names)
        ]
        rows = [
            {"image_id": i, "category_id": CLASSES.index(c), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for i, name in enumerate(names)
            for c, x1, y1, x2, y2 in BOXES[name]
        ]
        annotations = [{"id": k, **row, "area": 1, "iscrowd": 0} for k, row in enumerate(rows)]
        categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
        found = {"images": images, "categories": categories, "annotations": annotations}
        return found | changes

    def yolo_rows(self, name: str, kind: str = "box") -> str:
        lines = []
        for c, x1, y1, x2, y2 in BOXES[name]:
            x1, x2, y1, y2 = x1 / SIZE[0], x2 / SIZE[0], y1 / SIZE[1], y2 / SIZE[1]
            if kind == "box":
                numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            else:
                middle = (x1 + x2) / 2
                numbers = [x1, y1, middle, y1, x2, y1, x2, y2, x1, y2]
            lines.append(" ".join(map(repr, (CLASSES.index(c), *numbers))))
        return "\n".join(lines) + "\n"

    def voc_xml(self, name: str, first: int = 1, filename: str | None = None) -> str:
        objects = "".join(
            f"<object><name>{c}</name><difficult>{int(c == 'person')}</difficult><bndbox>"
            f"<xmin>{x1 + first}</xmin><ymin>{y1 + first}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for c, x1, y1, x2, y2 in BOXES[name]
        )
        return (
            f"<annotation><filename>{filename or name}</filename><size><width>{SIZE[0]}</width>"
            f"<height>{SIZE[1]}</height><depth>3</depth></size>{objects}</annotation>"
        )

    def table(self, path: str, header: list[str] | None, rows: list[list[Any]]) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([header, *rows] if header else rows)
        return target


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "data")


def contents(data: DataSet) -> dict[str, dict[str, list[tuple[Any, ...]]]]:
    """By split and name of the image: class name and corners, as the builder has them."""
    found: dict[str, dict[str, list[tuple[Any, ...]]]] = {}
    for split in data.splits:
        coco = split.coco
        images = found.setdefault(split.name, {})
        for image in coco.images:
            assert (image.width, image.height) == SIZE
            rows = coco.annotations_of(image.id)
            images[image.file_name.rpartition("/")[2]] = [
                (coco.categories.by_id(int(key)).name, *(round(float(v), 3) for v in box))
                for key, box in zip(rows.category_ids, rows.boxes_xyxy, strict=True)
            ]
    return found


EXPECTED: dict[str, dict[str, list[tuple[Any, ...]]]] = {
    "train": {name: [tuple(row) for row in BOXES[name]] for name in TRAIN},
    "val": {name: [tuple(row) for row in BOXES[name]] for name in VAL},
}
ALL = {"all": EXPECTED["train"] | EXPECTED["val"]}


@pytest.fixture
def opened() -> Callable[[Path | str], DataSet]:
    return open_data
