"""AP of every teacher of a store, and of their fusion: boxes stay arrays from store to metrics."""

import random
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from box_store import (
    BoxStore,
    FusionConfig,
    Selection,
    SelectionSpec,
    read_images,
    select,
)
from box_store.errors import DataError
from box_store.forms.opening import annotations_of
from box_store.identity import seen_by
from student_train.evaluation.coco_arrays import DetectionArrays, Truth
from student_train.evaluation.coco_metrics import Metrics, best_backend, coco_metrics

FUSED = "fused"
# with pycocotools a data set of COCO's size takes hours and tens of gigabytes
_WITHIN_REACH = 5000


@dataclass(frozen=True)
class TeacherScore:
    """How well one set of boxes fits the annotations, over the images that it covers."""

    teacher: str
    metrics: Metrics

    def to_json(self) -> dict[str, Any]:
        """The metrics in 0..1 (None where undefined), and how many images and boxes."""
        return {
            "teacher": self.teacher,
            **self.metrics.values,
            **self.metrics.recall_by_size,
            "n_images": self.metrics.n_images,
            "n_boxes": self.metrics.n_detections,
        }


def score_teachers(
    store: BoxStore,
    annotations: Path,
    *,
    names: Sequence[str] | None = None,
    score_floor: float = 0.0,
    top_k: int = 100,
    calibrated: bool = False,
    fusion: FusionConfig | None = None,
    with_fusion: bool = True,
    max_images: int | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> list[TeacherScore]:
    """Score each teacher over the annotated images that it saw, then the fusion of all of them.

    A teacher that saw none of the images is left out. The fusion, over the images that any teacher
    saw, is made only where there are two teachers or more. calibrated and the last three: see
    `open_scorer`.

    Raises: DataError: no teacher saw any of the annotated images, or the categories differ.
    UnknownTeacher, UsageError: as `box_store.select` raises them.
    """
    spec = SelectionSpec(
        teachers=tuple(names) if names is not None else tuple(store.teachers),
        score_floor=score_floor,
        top_k=top_k,
        calibrated=calibrated,
        fusion=fusion or FusionConfig(),
    )
    with open_scorer(
        store, annotations, spec, max_images=max_images, seed=seed, backend=backend
    ) as scorer:
        scores = scorer.each(scorer.names)
        if with_fusion and len(scorer.names) > 1:
            scores.append(scorer.fused(scorer.names))
    return scores


@contextmanager
def open_scorer(
    store: BoxStore,
    annotations: Path,
    spec: SelectionSpec,
    *,
    max_images: int | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> Iterator["Scorer"]:
    """A scorer of box sets that are selected as `spec` says.

    max_images: look at no more annotated images that some teacher of `spec` saw, drawn with `seed`.
    backend: of the metrics, by default the fastest that is installed; all give the same numbers.
    Raises DataError for annotations of other categories, UnknownTeacher, UsageError.
    """
    coco = annotations_of(annotations)
    names = spec.teachers if spec.teachers is not None else tuple(store.teachers)
    store = seen_by(store, coco, names)
    truth = Truth.of_coco(coco)
    if max_images is not None:
        seen = set(truth.image_ids.tolist()) & _seen_by(store, names)
        if len(seen) > max_images:
            truth = truth.only(random.Random(seed).sample(sorted(seen), max_images))
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        spec = replace(spec, teachers=names)
        yield Scorer(store, annotations, truth, spec, Path(folder), backend or best_backend())


def images_within_reach() -> int | None:
    """How many images the fastest installed backend can compare in minutes; None for all."""
    return None if best_backend() == "hotcoco" else _WITHIN_REACH


def _seen_by(store: BoxStore, names: Sequence[str]) -> set[int]:
    """Images that some of the teachers saw successfully."""
    found: set[int] = set()
    for name in names:
        images = read_images(store, name, ["image_id", "status"])
        found.update(images.filter(pc.field("status") == "ok")["image_id"].to_pylist())
    return found


class Scorer:
    """COCO metrics of teachers and of fusions; `names` are the teachers of its selection."""

    def __init__(
        self,
        store: BoxStore,
        annotations: Path,
        truth: Truth,
        spec: SelectionSpec,
        folder: Path,
        backend: str,
    ) -> None:
        self.names = spec.teachers or ()
        self._store = store
        self._annotations = annotations
        self._truth = truth
        self._spec = spec
        self._folder = folder
        self._backend = backend

    def each(
        self, names: Sequence[str], images: Collection[int] | None = None
    ) -> list[TeacherScore]:
        """Every teacher that saw some of the images (default: the annotated ones), by itself.

        Raises DataError where none did.
        """
        selection = self._selection(names, "parallel")
        scores = [
            self._score(selection, name, covered)
            for name in selection.teachers
            if len(covered := self._covered(selection, name, images))
        ]
        if not scores:
            raise DataError(
                f"no teacher of {self._store.path} saw an image of {self._annotations}: "
                "were they run over another split?"
            )
        return scores

    def fused(self, names: Sequence[str], images: Collection[int] | None = None) -> TeacherScore:
        """The fusion of some teachers, over those of the images that any of them saw."""
        selection = self._selection(names, "fused")
        return self._score(selection, FUSED, self._covered(selection, FUSED, images))

    def common_images(self, names: Sequence[str]) -> set[int]:
        """The annotated images that all of the teachers saw."""
        selection = self._selection(names, "parallel")
        return set.intersection(
            *(set(self._covered(selection, name, None).tolist()) for name in names)
        )

    def _selection(self, names: Sequence[str], combine: Literal["parallel", "fused"]) -> Selection:
        spec = replace(self._spec, teachers=tuple(names), combine=combine)
        return Selection.open(select(self._store, spec, self._folder))

    def _covered(
        self, selection: Selection, name: str, images: Collection[int] | None
    ) -> NDArray[np.int64]:
        seen = selection.of(name).image_ids
        covered = np.isin(seen, self._truth.image_ids)
        if images is not None:
            covered &= np.isin(seen, np.fromiter(images, np.int64, len(images)))
        return seen[covered]

    def _score(self, selection: Selection, name: str, covered: NDArray[np.int64]) -> TeacherScore:
        boxes = selection.of(name)
        of_image = np.repeat(boxes.image_ids, np.diff(boxes.offsets))
        kept = np.isin(of_image, covered)
        found = DetectionArrays.of_corners(
            of_image[kept], boxes.category_ids[kept], boxes.boxes_xyxy[kept], boxes.scores[kept]
        )
        metrics = coco_metrics(self._truth, found, covered.tolist(), self._backend)
        return TeacherScore(name, metrics)
