"""Evaluating a model over a split: detections of every image, then COCO metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from box_store.boxes import Boxes
from box_store.errors import DataError
from box_store.patience import Patience, Say
from box_store.places.files import write_json
from student_train.data import Batch
from student_train.data.splits import Validation
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
    "to_results",
    "write_results",
]


# comparing so many takes seconds
_MANY_DETECTIONS = 50_000


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and the detections they were computed from as COCO results."""

    metrics: Metrics
    results: list[dict[str, Any]]
    problems: tuple[str, ...]
    """images that could not be read, one sentence each: they count as images without detections"""

    def write(self, folder: Path, name: str) -> Path:
        """Write `NAME.json` (COCO results), `.metrics.json`, `.curves.json`; the first's path."""
        path = folder / f"{name}.json"
        write_results(path, self.results)
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

    Every process takes its share of the images; all return the same. The first one's `say` hears
    how far it is.

    Raises:
        DataError: none of the images can be used.
        Stopped: one of the processes was asked to stop on the way; raised on all.
    """
    world = runtime.world
    told = Patience(
        say if world.is_first else lambda text: None,
        f"evaluating on {validation.source.label}",
        len(validation.dataset),
        "images",
    )
    rows, signal_number = _detect(model, validation, runtime, stop, told)
    asked = max(world.gather([signal_number]))
    if asked:
        raise Stopped(asked)
    # in the order of one process, whichever process found them: ties between scores then rank alike
    rows = sorted(world.gather(rows), key=lambda row: row["image_id"])
    messages = [problem.message for problem in validation.loader.problems.values()]
    if len(rows) > _MANY_DETECTIONS and world.is_first:
        say(f"comparing {len(rows)} detections with the annotations")
    messages = world.gather(messages)
    if len(messages) >= len(validation.dataset):
        raise DataError(
            f"none of the {len(validation.dataset)} images in {validation.dataset.root} can be "
            f"used; the first problem: {messages[0]}"
        )
    metrics = coco_metrics(
        validation.source.coco,
        rows,
        image_ids=validation.dataset.image_ids.tolist(),
        backend=validation.backend,
    )
    return Evaluation(metrics, rows, tuple(messages))


@torch.inference_mode()
def _detect(
    model: Student,
    validation: Validation,
    runtime: Runtime,
    stop: StopRequest | None,
    told: Patience,
) -> tuple[list[dict[str, Any]], int]:
    """This process's share of the results, and the signal that cut it short (0: none)."""
    was_training = model.training
    model.eval()
    rows: list[dict[str, Any]] = []
    for batch in _until_stopped(iter(validation.loader), stop):
        batch = batch.to(runtime.device, model.config.pixels)  # type: ignore[union-attr]
        with runtime.autocast():
            output = model(batch.images, batch.mask)
        found = top_k(output, batch.original_sizes, model.config.top_k)
        sizes = batch.original_sizes.tolist()
        for image_id, boxes in zip(
            batch.image_ids, to_boxes(found, sizes, validation.class_space), strict=True
        ):
            rows += to_results(image_id, boxes)
        told.advance(len(batch.image_ids) * runtime.world.size)
    model.train(was_training)
    return rows, stop.signal_number if stop is not None else 0


def _until_stopped(batches: Iterator[Batch], stop: StopRequest | None) -> Iterator[Batch]:
    while stop is None or not stop.signal_number:
        try:
            batch = (
                next(batches, None) if stop is None else stop.waiting(lambda: next(batches, None))
            )
        except Stopped:
            return
        if batch is None:
            return
        yield batch


def to_results(image_id: int, boxes: Boxes) -> list[dict[str, Any]]:
    """COCO results of one image, rounded to 1/100 px; `boxes.class_ids` are category ids."""
    return [
        {
            "image_id": int(image_id),
            "category_id": category_id,
            "bbox": [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), score, category_id in zip(
            boxes.boxes_xyxy.tolist(),
            boxes.scores.tolist(),
            boxes.class_ids.tolist(),
            strict=True,
        )
    ]


def write_results(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write a COCO results file, whole or not at all."""
    write_json(path, list(results), indent=None)
