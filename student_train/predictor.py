"""A trained student as a function from images to boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from box_store.boxes import Boxes
from box_store.categories import Categories
from box_store.errors import DataError, UsageError
from box_store.places.locations import RemotePath
from box_store.results.exporting import detections
from box_store.tiling.looking import predict_tiled
from box_store.tiling.tiles import Tiling
from student_train.data import AsStored, EvalTransform, Sample, Scene, Transform, collate
from student_train.data.loader import Batch
from student_train.data.video import Frame, read_frames, require_opencv
from student_train.evaluation.detections import to_boxes
from student_train.machine.runtime import Runtime
from student_train.models import Targets, top_k
from student_train.models.fusing import make_ready
from student_train.runs.loading import load_any
from student_train.runs.trained import TrainedStudent


class Predictor:
    """Detects in images of any size. Takes the student over: its batch norms become part of its
    convolutions, after which it cannot be trained or saved.

    `class_names` are those of the data set's categories, ordered by id; what `predict` returns are
    indices into them. With a `tiling` it looks at tiles of each image too, for small objects in
    large images: as many times as there are tiles, and once at the whole.
    """

    def __init__(
        self, student: TrainedStudent, runtime: Runtime, tiling: Tiling | None = None
    ) -> None:
        self.student = student
        self.runtime = runtime
        self.tiling = tiling
        self.class_names: tuple[str, ...] = student.class_space.categories.names
        self._model = student.model.to(runtime.device)
        make_ready(self._model, runtime.device)
        self._transform: Transform = EvalTransform(student.config.augment)
        self._pad_to = student.config.model.side_multiple
        if student.resizes:
            self._transform, self._pad_to = AsStored(), 1

    @property
    def categories(self) -> Categories:
        """The data set's category table."""
        return self.student.class_space.categories

    def predict(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """Boxes of each image, best first, in its own pixels; `class_ids` index `class_names`.

        Args:
            images: each [H, W, 3], uint8, RGB.
        """
        if not images:
            return []
        if self.tiling is not None:
            return predict_tiled(self._predict, images, self.tiling)
        return self._predict(images)

    def video(self, path: Path, every: int = 1) -> Iterator[tuple[Frame, Boxes]]:
        """Every `every`-th frame of a video, with its boxes, one after the other.

        Raises:
            UsageError: OpenCV is not installed, or `every` is below 1.
            DataError: the file cannot be read as a video.
        """
        require_opencv()
        if every < 1:
            raise UsageError(f"every so many-th frame is at least the 1st, got {every}")
        if not path.is_file():
            raise DataError(f"no video at {path}")
        return ((frame, self.predict([frame.image])[0]) for frame in read_frames(path, every))

    @torch.inference_mode()
    def _predict(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        batch = as_batch(images, self._transform, self._pad_to)
        batch = batch.to(self.runtime.device, self.student.config.model.pixels)
        with self.runtime.autocast():
            output = self._model(batch.images, batch.mask)
        found = top_k(output, batch.original_sizes, self.student.config.model.top_k)
        sizes = [image.shape[:2] for image in images]
        ids = np.asarray(self.categories.ids, np.int64)
        return [
            replace(boxes, class_ids=np.searchsorted(ids, boxes.class_ids))
            for boxes in to_boxes(found, sizes, self.student.class_space)
        ]


def as_batch(images: Sequence[np.ndarray], transform: Transform, pad_to: int) -> Batch:
    """Images [H, W, 3], uint8, RGB, as the evaluation has them."""
    # the evaluation transform draws no random numbers
    generator = torch.Generator()
    nothing = Targets.truth(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    samples = []
    for index, image in enumerate(images):
        pixels = torch.tensor(image).permute(2, 0, 1)
        scene = transform(Scene.start(pixels, torch.zeros(0, 4)), generator)
        height, width = image.shape[:2]
        samples.append(Sample(scene.image, nothing, {}, index, (height, width)))
    return collate(samples, pad_to=pad_to)


def load_predictor(
    run: Path | RemotePath | str,
    device: str = "auto",
    weights: str = "best",
    *,
    tile: int | None = None,
    overlap: float = Tiling.overlap,
) -> Predictor:
    """A predictor from a run folder, a `.safetensors` file, an ONNX file that `student-train
    export` wrote (which runs in onnxruntime on the CPU), a folder of transformers, or
    `hub:ORG/NAME[@REVISION]`; see `load_any` for the errors.

    tile, overlap: look at tiles of so many pixels too, neighbours sharing that part of a side;
    UsageError for what is none (`box_store.tiling`).
    """
    tiling = None if tile is None else Tiling(tile, overlap)
    return Predictor(load_any(run, weights), Runtime.start(device), tiling)


def as_rows(boxes: Boxes, categories: Categories) -> list[dict[str, Any]]:
    """A predictor's boxes for JSON: category, category_id, score, bbox as x, y, w, h in pixels."""
    ids = np.asarray(categories.ids, np.int32)[boxes.class_ids]
    return [
        {"category": categories.by_id(entry["category_id"]).name}
        | {key: entry[key] for key in ("category_id", "score", "bbox")}
        for entry in detections(0, replace(boxes, class_ids=ids))
    ]
