"""A teacher that fails as it is told, and a child process or a driver that knows it.

`python faulty.py FD` is `teacher_infer.workers.child`, `python faulty.py run ...` is
`teacher-infer`, both with one more adapter, `faulty`. Its model is a JSON file:
`{"faults": {"IMAGE_ID": FAULT},
"seconds": S, "loading": L}`, the times that an image and loading take; images carry their id in
their first pixel.
"""

import ctypes
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from teacher_infer.adapters import registry
from teacher_infer.adapters.info import AdapterInfo
from teacher_infer.adapters.protocol import Detections
from teacher_infer.workers import child, local_pool

SIZE = 16


def _fail(fault: str) -> None:
    if fault == "hang":
        time.sleep(3600)
    elif fault == "exit":
        os._exit(9)
    elif fault == "segfault":
        ctypes.string_at(0)
    elif fault == "killed":
        os.kill(os.getpid(), 9)
    elif fault == "raise":
        raise RuntimeError("cannot digest this")


class FaultyDetector:
    """Some boxes an image, drawn from its id alone."""

    class_names: tuple[str, ...] = ("person", "car")
    licence = "MIT"
    versions: dict[str, str] = {"faulty": "1"}  # noqa: RUF012
    nms_iou = None
    runtime: dict[str, str] = {"nms": "none"}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text())
        time.sleep(document.get("loading", 0))
        self._faults: dict[str, str] = document.get("faults", {})
        self._seconds: float = document.get("seconds", 0.0)

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        ids = [int(image[0, 0] @ (65536, 256, 1)) for image in images]
        for image_id in ids:
            _fail(self._faults.get(str(image_id), ""))
        time.sleep(self._seconds * len(images))
        return [self._boxes(image_id) for image_id in ids]

    def _boxes(self, image_id: int) -> Detections:
        draw = np.random.default_rng(image_id)
        n_boxes = int(draw.integers(0, 5))
        low = draw.uniform(0, SIZE / 2, (n_boxes, 2))
        high = low + draw.uniform(1, SIZE / 2, (n_boxes, 2))
        scores = draw.uniform(0.1, 1, n_boxes)
        return Detections(np.hstack([low, high]), scores, draw.integers(0, 2, n_boxes))


ADAPTER = AdapterInfo(
    name="faulty",
    summary="",
    example="",
    licence="MIT",
    load=lambda spec: FaultyDetector(Path(spec.model)),
    weights_files=lambda spec: [Path(spec.model)],
    uses_torch=False,
)


def install() -> None:
    """Make the adapter known in this process, and to the children that it starts."""
    if ADAPTER not in registry.OURS:
        registry.OURS = (*registry.OURS, ADAPTER)
    local_pool._CHILD = (str(Path(__file__).absolute()),)


def make_folder(data: Path, n_images: int) -> Path:
    """A folder in COCO's layout whose tiny images carry their ids."""
    (data / "train").mkdir(parents=True)
    (data / "annotations").mkdir()
    images = []
    for image_id in range(1, n_images + 1):
        pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
        pixels[0, 0] = image_id >> 16, image_id >> 8 & 255, image_id & 255
        name = f"{image_id:06d}.png"
        Image.fromarray(pixels).save(data / "train" / name)
        images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
    categories = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]
    document = {"images": images, "annotations": [], "categories": categories}
    (data / "annotations" / "instances_train.json").write_text(json.dumps(document))
    return data


def children_of(pid: int) -> list[int]:
    """Processes that a driver has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def victim(driver: int, draw: random.Random, p_driver: float) -> int | None:
    """Whom to kill: the driver with that probability, else one of its workers, if it has any."""
    if draw.random() < p_driver:
        return driver
    workers = children_of(driver)
    return draw.choice(workers) if workers else None


if __name__ == "__main__":
    install()
    if sys.argv[1].isdecimal():
        child.leave_with_parent()
        try:
            child.serve(child.Connection(int(sys.argv[1])))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            sys.exit(0)
    from teacher_infer.cli import main

    main()
