"""COCO box metrics by pycocotools or a faster twin: the published number, and it per class."""

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from box_store.coco.annotations import CocoData, coco_of, coco_table
from box_store.errors import DataError, UsageError, nearest
from box_store.forms.opening import annotations_of
from box_store.places.locations import Location
from student_train.evaluation.coco_arrays import DetectionArrays, Truth

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")

BACKENDS = ("pycocotools", "hotcoco", "faster-coco-eval")

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
    annotations: Location | Mapping[str, Any] | CocoData | Truth,
    results: Sequence[Mapping[str, Any]] | DetectionArrays,
    image_ids: Iterable[int] | None = None,
    backend: str = "pycocotools",
) -> Metrics:
    """Box metrics of detections.

    Args:
        annotations: a place that `annotations_of` reads, the content of a COCO file, or what was
            made of it.
        results: COCO results (image_id, category_id, bbox xywh in px, score), or arrays of them.
        image_ids: evaluate these images only; by default all that the annotations list.
        backend: pycocotools, whose numbers are the published ones, or one of the same numbers:
            hotcoco, some twenty times faster in a tenth of the memory, or faster-coco-eval.

    Raises:
        UsageError: there is no such backend, or it is not installed.
        DataError: the annotations cannot be read, or a result names an image or category that they
            lack.
    """
    compare = _load(backend)
    truth = annotations
    if not isinstance(truth, Truth):
        truth = Truth.of_coco(_read(truth))
    found = results if isinstance(results, DetectionArrays) else DetectionArrays.of_rows(results)
    _check_ids(found, truth)
    chosen = truth.image_ids
    if image_ids is not None:
        wanted = np.fromiter((int(i) for i in image_ids), np.int64)
        chosen = chosen[np.isin(chosen, wanted)]
    chosen = np.unique(chosen)
    # pycocotools prints a line at every turn
    with contextlib.redirect_stdout(io.StringIO()):
        compared = compare(truth, found, chosen)
    stats = compared.stats
    return Metrics(
        values={name: _defined(stats[at]) for name, at in zip(METRIC_NAMES, _STATS, strict=True)},
        per_class=tuple(_per_class(compared, truth, truth.counts(chosen))),
        n_images=len(chosen),
        n_detections=int(np.isin(found.image_ids, chosen).sum()),
        curves=_curves(compared, truth),
        recall_by_size={name: _defined(stats[at]) for name, at in _RECALL_STATS.items()},
    )


@dataclass(frozen=True)
class Compared:
    """What a backend found, in pycocotools' layout and with -1 for undefined."""

    stats: Sequence[float]  # the twelve numbers of `summarize`
    precision: np.ndarray  # [IoU, recall, category, area, max detections]
    scores: np.ndarray  # the same
    recall: np.ndarray  # [IoU, category, area, max detections]
    category_ids: Sequence[int]
    recall_points: np.ndarray  # [recall]


Compare = Callable[[Truth, DetectionArrays, np.ndarray], Compared]


def _load(backend: str) -> Compare:
    if backend != "hotcoco":
        return partial(_by_pycocotools, *load_backend(backend))
    if find_spec("hotcoco") is None:
        raise UsageError(
            "hotcoco is not installed: pip install 'teach-detr[eval]', or evaluate with pycocotools"
        )
    return _by_hotcoco


def _by_pycocotools(
    coco_class: Any,
    evaluation_class: Any,
    truth: Truth,
    found: DetectionArrays,
    images: np.ndarray,
) -> Compared:
    table = truth.table()
    known = _indexed(coco_class, table)
    detections = _indexed(coco_class, {**table, "annotations": list(found.rows())})
    evaluation = evaluation_class(known, detections, iouType="bbox")
    evaluation.params.imgIds = images.tolist()
    evaluation.params.catIds = sorted(i for i, _ in truth.categories)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return _compared(evaluation.stats, evaluation.eval, evaluation.params)


def _by_hotcoco(truth: Truth, found: DetectionArrays, images: np.ndarray) -> Compared:
    from hotcoco import COCOeval as HotCocoEval

    columns = (found.image_ids, found.boxes_xywh, found.scores, found.category_ids)
    # ids up to 2**53 are whole in float64
    detections = truth.hotcoco.load_res(np.column_stack(columns))
    evaluation = HotCocoEval(truth.hotcoco, detections, "bbox")
    evaluation.params.imgIds = images.tolist()
    evaluation.params.catIds = sorted(i for i, _ in truth.categories)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return _compared(evaluation.stats, evaluation.eval, evaluation.params)


def _compared(stats: Any, arrays: Mapping[str, Any] | None, params: Any) -> Compared:
    found = arrays or {}
    return Compared(
        stats=[float(value) for value in stats],
        precision=np.asarray(found["precision"]),
        scores=np.asarray(found["scores"]),
        recall=np.asarray(found["recall"]),
        category_ids=[int(i) for i in params.catIds],
        recall_points=np.asarray(params.recThrs),
    )


def best_backend() -> str:
    """The fastest backend that is installed, for reports that compare many sets of boxes."""
    return "hotcoco" if find_spec("hotcoco") is not None else "pycocotools"


def load_backend(name: str) -> tuple[Any, Any]:
    """The classes of a backend in pycocotools' likeness that hold annotations and compare them.

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


def read_annotations(annotations: Location | Mapping[str, Any] | CocoData) -> dict[str, Any]:
    """A COCO table of exactly the objects that training and labelling see: see `coco_table`.

    Raises DataError.
    """
    return coco_table(_read(annotations))


def _read(annotations: Location | Mapping[str, Any] | CocoData) -> CocoData:
    if isinstance(annotations, CocoData):
        return annotations
    return coco_of(annotations) if isinstance(annotations, Mapping) else annotations_of(annotations)


def _indexed(coco_class: Any, table: Any) -> Any:
    coco = coco_class()
    coco.dataset = table
    coco.createIndex()
    return coco


def _check_ids(found: DetectionArrays, truth: Truth) -> None:
    wrong = np.setdiff1d(found.image_ids, truth.image_ids).tolist()
    if wrong:
        raise DataError(
            f"{len(wrong)} image ids of the results are not in the annotations "
            f"(first: {wrong[:5]}); were they made on another split?"
        )
    categories = [i for i, _ in truth.categories]
    wrong = np.setdiff1d(found.category_ids, categories).tolist()
    if wrong:
        raise DataError(
            f"{len(wrong)} category ids of the results are not in the annotations "
            f"(first: {wrong[:5]}); theirs lie in "
            f"{min(categories, default=None)}..{max(categories, default=None)}"
        )


def _defined(value: float) -> float | None:
    # pycocotools writes -1 where there is nothing to average
    return None if value < 0 else float(value)


def _per_class(
    compared: Compared, truth: Truth, counts: Mapping[int, int]
) -> Iterable[ClassMetrics]:
    names = dict(truth.categories)
    for at, category_id in enumerate(compared.category_ids):
        curves = compared.precision[:, :, at, :, -1]
        yield ClassMetrics(
            category_id=category_id,
            name=names[category_id],
            n_truth=counts.get(category_id, 0),
            AP=_mean_defined(curves[..., 0]),
            AP50=_mean_defined(curves[_IOU_50, :, 0]),
            AP75=_mean_defined(curves[_IOU_75, :, 0]),
            APs=_mean_defined(curves[..., 1]),
            APm=_mean_defined(curves[..., 2]),
            APl=_mean_defined(curves[..., 3]),
            AR100=_mean_defined(compared.recall[:, at, 0, -1]),
        )


def _curves(compared: Compared, truth: Truth) -> Curves:
    names = dict(truth.categories)
    precision = compared.precision[:, :, :, 0, -1]  # [IoU, recall, category]
    scores = compared.scores[_IOU_50, :, :, 0, -1]
    parts = {"AP": precision, "AP50": precision[[_IOU_50]], "AP75": precision[[_IOU_75]]}
    return Curves(
        recall=tuple(compared.recall_points.tolist()),
        precision={
            name: tuple(_mean_defined(part[:, at]) for at in range(part.shape[1]))
            for name, part in parts.items()
        },
        per_class=tuple(
            (
                names[category_id],
                tuple(_defined(value) for value in precision[_IOU_50, :, at]),
                tuple(_defined(value) for value in scores[:, at]),
            )
            for at, category_id in enumerate(compared.category_ids)
            if (precision[_IOU_50, :, at] > -1).all()
        ),
    )


def _mean_defined(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None
