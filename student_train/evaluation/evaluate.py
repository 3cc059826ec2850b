"""Evaluating a model over a split: detections of every image, then COCO metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from box_store.boxes import Boxes
from box_store.errors import DataError, TeachDetrError
from box_store.patience import Patience, Say
from box_store.places.files import write_json
from box_store.results.exporting import write_results
from student_train.data.splits import Validation
from student_train.evaluation.coco_arrays import DetectionArrays
from student_train.evaluation.coco_metrics import METRIC_NAMES, ClassMetrics, Metrics, coco_metrics
from student_train.evaluation.detections import to_boxes
from student_train.machine.interrupt import Stopped, StopRequest
from student_train.machine.runtime import Runtime
from student_train.models import Student, top_k

__all__ = [
    "METRIC_NAMES",
    "ClassMetrics",
    "Evaluation",
    "Metrics",
    "coco_metrics",
    "evaluate_model",
]


# comparing so many takes seconds
_MANY_DETECTIONS = 50_000


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and the detections they were computed from."""

    metrics: Metrics
    found: tuple[tuple[int, Boxes], ...]
    """the id and the boxes of each image, `class_ids` being category ids; of a run of several
    processes the first has them"""
    problems: tuple[str, ...]
    """images that could not be read, one sentence each: they count as images without detections"""

    def write(self, folder: Path, name: str) -> Path:
        """Write `NAME.json` (COCO results), `.metrics.json`, `.curves.json`; the first's path."""
        path = folder / f"{name}.json"
        write_results(path, self.found)
        for kind, content in (
            ("metrics", self.metrics.to_json()),
            ("curves", self.metrics.curves.to_json()),
        ):
            write_json(folder / f"{name}.{kind}.json", content)
        return path


def evaluate_model(
    model: Student,
    validation: Validation,
    runtime: Runtime,
    stop: StopRequest | None = None,
    say: Say = lambda text: None,
) -> Evaluation:
    """Detect in every image of the evaluation split and compare with its annotations.

    Every process takes its share of the images; the first compares what all found, and tells the
    others the metrics. Its `say` hears how far it is.

    Raises:
        DataError: none of the images can be used.
        Stopped, LoaderDied: one of the processes was asked to stop on the way, or has lost its
            images; raised on all.
    """
    world = runtime.world
    told = Patience(
        say if world.is_first else lambda text: None,
        f"evaluating on {validation.source.label}",
        len(validation.dataset),
        "images",
    )
    found, obstacle = [], None
    try:
        found = _detect(model, validation, runtime, stop or StopRequest(), told)
    except (Stopped, TeachDetrError) as error:
        obstacle = error
    world.agree(obstacle)
    messages = world.gather([each.message for each in validation.loader.problems.values()])
    if len(messages) >= len(validation.dataset):
        raise DataError(
            f"none of the {len(validation.dataset)} images in {validation.dataset.root} can be "
            f"used; the first problem: {messages[0]}"
        )
    # in the order of one process, whichever process found them: ties between scores then rank alike
    found = sorted(world.collect(found), key=lambda image: image[0])
    metrics = world.on_first(lambda: _compared(validation, found, say))
    return Evaluation(metrics, tuple(found), tuple(messages))


def _compared(validation: Validation, found: Sequence[tuple[int, Boxes]], say: Say) -> Metrics:
    detections = DetectionArrays.of_images(found)
    if len(detections) > _MANY_DETECTIONS:
        say(f"comparing {len(detections)} detections with the annotations")
    return coco_metrics(
        validation.source.coco,
        detections,
        image_ids=validation.dataset.image_ids.tolist(),
        backend=validation.backend,
    )


@torch.inference_mode()
def _detect(
    model: Student,
    validation: Validation,
    runtime: Runtime,
    stop: StopRequest,
    told: Patience,
) -> list[tuple[int, Boxes]]:
    """This process's share of the images."""
    was_training = model.training
    model.eval()
    images: list[tuple[int, Boxes]] = []
    batches = iter(validation.loader)
    while (batch := stop.waiting(lambda: next(batches, None))) is not None:
        batch = batch.to(runtime.device, model.config.pixels)  # type: ignore[union-attr]
        with runtime.autocast():
            output = model(batch.images, batch.mask)
        found = top_k(output, batch.original_sizes, model.config.top_k)
        sizes = batch.original_sizes.tolist()
        boxes = to_boxes(found, sizes, validation.class_space)
        images += zip(batch.image_ids, boxes, strict=True)
        told.advance(len(batch.image_ids) * runtime.world.size)
    model.train(was_training)
    return images
