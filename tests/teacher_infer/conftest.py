"""A tiny COCO folder, and a detector that is an ONNX file of nine nodes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from teacher_infer.bench.inputs import write_tiny_detector

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 7, "name": "kite"}]
SIZE = (64, 48)

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """make_folder(n_images=8, split="train", first_id=1) -> a folder in COCO's layout."""

    def make(
        n_images: int = 8, split: str = "train", first_id: int = 1, name: str = "coco"
    ) -> Path:
        data = tmp_path / name
        (data / split).mkdir(parents=True)
        (data / "annotations").mkdir(exist_ok=True)
        images = []
        for image_id in range(first_id, first_id + n_images):
            file_name = f"{image_id:06d}.jpg"
            # the fake detector's scores follow the brightness
            pixels = np.full((SIZE[1], SIZE[0], 3), (37 * image_id) % 256, np.uint8)
            Image.fromarray(pixels).save(data / split / file_name)
            images.append(
                {"id": image_id, "file_name": file_name, "width": SIZE[0], "height": SIZE[1]}
            )
        box = {"id": 1, "image_id": first_id, "category_id": 1, "bbox": [4, 4, 8, 8]}
        annotations = [box] if images else []
        document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (data / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        return data

    return make


@pytest.fixture
def edit_annotations() -> Callable[[Path, str, Callable[[dict], None]], None]:
    """edit(data, split, change): let `change` alter a folder's annotation document."""

    def edit(data: Path, split: str, change: Callable[[dict], None]) -> None:
        path = data / "annotations" / f"instances_{split}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    return edit


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX detector (format=boxes, 32 px input): two boxes an image, of `person` and `unicorn`.

    The person's score is the mean brightness of the image; the unicorn's is 0.75. Its class names
    (person, unicorn, car) lie beside it in classes.txt.
    """
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("detector")
    write_tiny_detector(folder, ("person", "unicorn", "car"))
    return folder / "detector.onnx"


@pytest.fixture
def teacher(detector: Path) -> str:
    """The detector as `--teacher` takes it, without a name: `tiny=` + teacher."""
    classes = detector.with_name("classes.txt")
    return f"onnx:{detector},format=boxes,classes={classes},licence=MIT"
