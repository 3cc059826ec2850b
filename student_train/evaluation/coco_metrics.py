"""COCO box metrics by pycocotools: the published number, and the same per class."""

import contextlib
import copy
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from box_store.errors import DataError, UsageError, nearest
from box_store.places.locations import Location, RemoteError, RemotePath, staged

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")

BACKENDS = ("pycocotools", "faster-coco-eval")

# where pycocotools keeps each of METRIC_NAMES in COCOeval.stats
_STATS = (0, 1, 2, 3, 4, 5, 8)

# and recall of small, medium and large objects, with 100 boxes an image
_RECALL_STATS = {"ARs": 9, "ARm": 10, "ARl": 11}

# of its ten IoU thresholds
_IOU_50, _IOU_75 = 0, 5


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one category, in 0..1; None where the images hold no object of it."""

    category_id: int
    name: str
    n_truth: int
    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR100: float | None


@dataclass(frozen=True)
class Curves:
    """Precision over recall, in 0..1; None where a class has no object."""

    recall: tuple[float, ...]
    """101 points"""
    precision: dict[str, tuple[float | None, ...]]
    """mean over classes, at all IoUs (AP) and at 0.5 and 0.75 (AP50, AP75)"""
    per_class: tuple[tuple[str, tuple[float | None, ...], tuple[float | None, ...]], ...]
    """name, precision at IoU 0.5, and the score from which on each recall is reached"""

    def to_json(self) -> dict[str, Any]:
        """Lists of numbers."""
        return {
            "recall": list(self.recall),
            "precision": {name: list(values) for name, values in self.precision.items()},
            "per_class": [
                {"name": name, "precision": list(precision), "score": list(score)}
                for name, precision, score in self.per_class
            ],
        }


@dataclass(frozen=True)
class Metrics:
    """COCO metrics of one set of detections.

    `values` has METRIC_NAMES as keys, in 0..1; None where it is undefined (no object of that size,
    no object at all).
    """

    values: dict[str, float | None]
    per_class: tuple[ClassMetrics, ...]
    n_images: int
    n_detections: int
    curves: Curves = field(default_factory=lambda: Curves((), {}, ()))
    recall_by_size: dict[str, float | None] = field(default_factory=dict)
    """ARs, ARm and ARl: AR100 of the objects of that size"""

    @property
    def AP(self) -> float | None:
        return self.values["AP"]

    def to_json(self) -> dict[str, Any]:
        """Metrics at the top level, then counts, then `per_class` as a list of tables."""
        return {
            **self.values,
            "n_images": self.n_images,
            "n_detections": self.n_detections,
            "per_class": [dict(vars(row)) for row in self.per_class],
        }


def coco_metrics(
    annotations: Location | Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    image_ids: Iterable[int] | None = None,
    backend: str = "pycocotools",
) -> Metrics:
    """Box metrics of COCO results (image_id, category_id, bbox xywh in px, score).

    Args:
        annotations: a COCO instances JSON, or its content.
        image_ids: evaluate these images only; by default all that the annotations list.
        backend: pycocotools, whose numbers are the published ones, or faster-coco-eval.

    Raises:
        UsageError: there is no such backend, or it is not installed.
        DataError: the annotations cannot be read, or a result names an image or category that they
            lack.
    """
    coco_class, evaluation_class = load_backend(backend)
    table = read_annotations(annotations)
    known_images = {int(image["id"]) for image in table["images"]}
    chosen = known_images if image_ids is None else {int(i) for i in image_ids} & known_images
    _check_ids(results, known_images, {int(c["id"]): str(c["name"]) for c in table["categories"]})

    # pycocotools prints a line at every turn
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(coco_class, table)
        found = [_detection(at, row) for at, row in enumerate(results, start=1)]
        detections = _indexed(coco_class, {**table, "annotations": found})
        evaluation = evaluation_class(truth, detections, iouType="bbox")
        evaluation.params.imgIds = sorted(chosen)
        evaluation.params.catIds = sorted(int(c["id"]) for c in table["categories"])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    values = {
        name: _defined(evaluation.stats[at]) for name, at in zip(METRIC_NAMES, _STATS, strict=True)
    }
    counts = _truth_counts(table, chosen)
    return Metrics(
        values=values,
        per_class=tuple(_per_class(evaluation, table["categories"], counts)),
        n_images=len(chosen),
        n_detections=sum(int(row["image_id"]) in chosen for row in results),
        curves=_curves(evaluation, table["categories"]),
        recall_by_size={name: _defined(evaluation.stats[at]) for name, at in _RECALL_STATS.items()},
    )


def load_backend(name: str) -> tuple[Any, Any]:
    """The classes of a backend that hold annotations and compare them.

    Raises:
        UsageError: there is no such backend, or it is not installed.
    """
    if name not in BACKENDS:
        raise UsageError(
            f"COCO metrics come from {' or '.join(BACKENDS)}, not {name!r}."
            f"{nearest(name, BACKENDS)}"
        )
    if name == "pycocotools":
        return COCO, COCOeval
    try:
        from faster_coco_eval import COCO as FasterCoco
        from faster_coco_eval import COCOeval_faster
    except ImportError:
        raise UsageError(
            "faster-coco-eval is not installed: pip install 'teach-detr[eval]', or evaluate with "
            "pycocotools"
        ) from None
    return FasterCoco, COCOeval_faster


def read_annotations(annotations: Location | Mapping[str, Any]) -> dict[str, Any]:
    """A private copy with the fields that pycocotools needs and many exporters leave out."""
    if isinstance(annotations, Path | RemotePath):
        try:
            table = json.loads(staged(annotations).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"no annotations at {annotations}") from None
        except RemoteError:
            raise
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{annotations} is not a readable JSON file: {error}") from None
    else:
        table = copy.deepcopy(dict(annotations))
    for key in ("images", "categories"):
        if not isinstance(table, dict) or key not in table:
            raise DataError(f"the annotations have no list {key!r}: expected COCO instances")
    for at, row in enumerate(table.setdefault("annotations", []), start=1):
        row.setdefault("id", at)
        row.setdefault("iscrowd", 0)
        # pycocotools sorts objects into sizes by this field
        if "area" not in row:
            row["area"] = float(row["bbox"][2]) * float(row["bbox"][3])
    return table


def _indexed(coco_class: Any, table: Any) -> Any:
    coco = coco_class()
    coco.dataset = table
    coco.createIndex()
    return coco


def _check_ids(
    results: Sequence[Mapping[str, Any]], images: set[int], categories: Mapping[int, str]
) -> None:
    wrong = sorted({int(row["image_id"]) for row in results} - images)
    if wrong:
        raise DataError(
            f"{len(wrong)} image ids of the results are not in the annotations "
            f"(first: {wrong[:5]}); were they made on another split?"
        )
    wrong = sorted({int(row["category_id"]) for row in results} - set(categories))
    if wrong:
        raise DataError(
            f"{len(wrong)} category ids of the results are not in the annotations "
            f"(first: {wrong[:5]}); theirs lie in "
            f"{min(categories, default=None)}..{max(categories, default=None)}"
        )


def _detection(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    x, y, w, h = (float(v) for v in row["bbox"])
    return {
        "id": number,
        "image_id": int(row["image_id"]),
        "category_id": int(row["category_id"]),
        "bbox": [x, y, w, h],
        "score": float(row["score"]),
        "area": w * h,
        "iscrowd": 0,
    }


def _truth_counts(table: Mapping[str, Any], images: set[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for row in table["annotations"]:
        if int(row["image_id"]) in images and not row["iscrowd"]:
            counts[int(row["category_id"])] = counts.get(int(row["category_id"]), 0) + 1
    return counts


def _defined(value: float) -> float | None:
    # pycocotools writes -1 where there is nothing to average
    return None if value < 0 else float(value)


def _per_class(
    evaluation: Any, categories: Sequence[Mapping[str, Any]], counts: Mapping[int, int]
) -> Iterable[ClassMetrics]:
    names = {int(row["id"]): str(row["name"]) for row in categories}
    precision = evaluation.eval["precision"]  # [IoU, recall, category, area, max detections]
    recall = evaluation.eval["recall"]  # [IoU, category, area, max detections]
    for at, category_id in enumerate(evaluation.params.catIds):
        curves = precision[:, :, at, :, -1]
        yield ClassMetrics(
            category_id=int(category_id),
            name=names[int(category_id)],
            n_truth=counts.get(int(category_id), 0),
            AP=_mean_defined(curves[..., 0]),
            AP50=_mean_defined(curves[_IOU_50, :, 0]),
            AP75=_mean_defined(curves[_IOU_75, :, 0]),
            APs=_mean_defined(curves[..., 1]),
            APm=_mean_defined(curves[..., 2]),
            APl=_mean_defined(curves[..., 3]),
            AR100=_mean_defined(recall[:, at, 0, -1]),
        )


def _curves(evaluation: Any, categories: Sequence[Mapping[str, Any]]) -> Curves:
    names = {int(row["id"]): str(row["name"]) for row in categories}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, category]
    scores = evaluation.eval["scores"][_IOU_50, :, :, 0, -1]
    parts = {"AP": precision, "AP50": precision[[_IOU_50]], "AP75": precision[[_IOU_75]]}
    return Curves(
        recall=tuple(np.asarray(evaluation.params.recThrs).tolist()),
        precision={
            name: tuple(_mean_defined(part[:, at]) for at in range(part.shape[1]))
            for name, part in parts.items()
        },
        per_class=tuple(
            (
                names[int(category_id)],
                tuple(_defined(value) for value in precision[_IOU_50, :, at]),
                tuple(_defined(value) for value in scores[:, at]),
            )
            for at, category_id in enumerate(evaluation.params.catIds)
            if (precision[_IOU_50, :, at] > -1).all()
        ),
    )


def _mean_defined(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None
