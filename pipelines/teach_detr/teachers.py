"""AP of every teacher of a store, and of their fusion, by pycocotools."""

import random
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from box_store import BoxStore, FusionConfig, Selection, SelectionSpec, load_coco, select
from box_store.errors import DataError
from student_train.coco_metrics import read_annotations
from student_train.evaluate import Metrics, coco_metrics, to_results

FUSED = "fused"


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
) -> list[TeacherScore]:
    """Score each teacher over the annotated images that it saw, then the fusion of all of them.

    A teacher that saw none of the images is left out. The fusion, over the images that any teacher
    saw, is made only where there are two teachers or more. calibrated, max_images, seed: see
    `open_scorer`.

    Raises: DataError: no teacher saw any of the annotated images, or the categories differ.
    UnknownTeacher, UsageError: as `box_store.select` raises them.
    """
    spec = SelectionSpec(
        score_floor=score_floor,
        top_k=top_k,
        calibrated=calibrated,
        fusion=fusion or FusionConfig(),
    )
    chosen = tuple(names) if names is not None else tuple(store.teachers)
    with open_scorer(store, annotations, spec, max_images=max_images, seed=seed) as scorer:
        scores = scorer.each(chosen)
        if with_fusion and len(chosen) > 1:
            scores.append(scorer.fused(chosen))
    return scores


@contextmanager
def open_scorer(
    store: BoxStore,
    annotations: Path,
    spec: SelectionSpec,
    *,
    max_images: int | None = None,
    seed: int = 0,
) -> Iterator["Scorer"]:
    """A scorer of box sets that are selected as `spec` says, whatever its teachers.

    max_images: look at no more annotated images that some teacher saw, drawn with `seed`: all of
    COCO's training images would be ten million rows of Python. Raises DataError for annotations of
    other categories.
    """
    store.check_categories(load_coco(annotations).categories, annotations)
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        yield Scorer(store, annotations, spec, Path(folder), max_images, seed)


class Scorer:
    """COCO metrics of teachers and of fusions against one annotation file."""

    def __init__(
        self,
        store: BoxStore,
        annotations: Path,
        spec: SelectionSpec,
        folder: Path,
        max_images: int | None,
        seed: int,
    ) -> None:
        self._store = store
        self._annotations = annotations
        self._spec = spec
        self._folder = folder
        self._max_images = max_images
        self._seed = seed
        self._truth = read_annotations(annotations)
        self._annotated = {int(row["id"]) for row in self._truth["images"]}

    def each(
        self, names: Sequence[str], images: Collection[int] | None = None
    ) -> list[TeacherScore]:
        """Every teacher that saw some of the images (default: the annotated ones), by itself.

        Raises DataError where none did.
        """
        selection = self._selection(names, "parallel")
        self._draw(selection)
        scores = [
            self._score(selection, name, covered)
            for name in selection.teachers
            if (covered := self._covered(selection, name, images))
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
        self._draw(selection)
        return self._score(selection, FUSED, self._covered(selection, FUSED, images))

    def common_images(self, names: Sequence[str]) -> set[int]:
        """The annotated images that all of the teachers saw."""
        selection = self._selection(names, "parallel")
        self._draw(selection)
        return set.intersection(*(set(self._covered(selection, name, None)) for name in names))

    def _selection(self, names: Sequence[str], combine: Literal["parallel", "fused"]) -> Selection:
        spec = replace(self._spec, teachers=tuple(names), combine=combine)
        return Selection.open(select(self._store, spec, self._folder))

    def _draw(self, selection: Selection) -> None:
        """Once: leave out of the ground truth what is more than `max_images`."""
        limit, self._max_images = self._max_images, None
        if limit is None:
            return
        seen = {i for name in selection.teachers for i in self._covered(selection, name, None)}
        if len(seen) <= limit:
            return
        self._annotated = set(random.Random(self._seed).sample(sorted(seen), limit))
        self._truth = {
            **self._truth,
            "images": [row for row in self._truth["images"] if row["id"] in self._annotated],
            "annotations": [
                row for row in self._truth["annotations"] if row["image_id"] in self._annotated
            ],
        }

    def _covered(
        self, selection: Selection, name: str, images: Collection[int] | None
    ) -> list[int]:
        wanted = self._annotated if images is None else self._annotated & set(images)
        return [i for i in selection.of(name).image_ids.tolist() if i in wanted]

    def _score(self, selection: Selection, name: str, covered: list[int]) -> TeacherScore:
        rows: list[dict[str, Any]] = []
        for image_id in covered:
            boxes = selection.boxes(name, image_id)
            if boxes is not None:
                rows += to_results(image_id, boxes)
        return TeacherScore(name, coco_metrics(self._truth, rows, covered))
