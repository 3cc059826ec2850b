"""AP of every teacher of a store, and of their fusion, by pycocotools."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box_store import BoxStore, FusionConfig, Selection, SelectionSpec, load_coco, select
from box_store.errors import DataError
from student_train.evaluate import Metrics, coco_metrics, to_results

FUSED = "fused"


@dataclass(frozen=True)
class TeacherScore:
    """How well one set of boxes fits the annotations, over the images that it covers."""

    teacher: str
    metrics: Metrics

    def to_json(self) -> dict[str, Any]:
        """The seven metrics in 0..1 (None where undefined), and how many images and boxes."""
        return {
            "teacher": self.teacher,
            **self.metrics.values,
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
    fusion: FusionConfig | None = None,
    with_fusion: bool = True,
) -> list[TeacherScore]:
    """Score each teacher over the annotated images that it saw, then the fusion of all of them.

    A teacher that saw none of the images is left out. The fusion, over the images that any teacher
    saw, is made only where there are two teachers or more.

    Raises: DataError: no teacher saw any of the annotated images, or the categories differ.
    UnknownTeacher, UsageError: as `box_store.select` raises them.
    """
    coco = load_coco(annotations)
    store.check_categories(coco.categories, annotations)
    annotated = set(coco.image_ids)
    chosen = tuple(names) if names is not None else tuple(store.teachers)
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        spec = SelectionSpec(teachers=chosen, score_floor=score_floor, top_k=top_k)
        scores = _score(Selection.open(select(store, spec, Path(folder))), annotated, annotations)
        if not scores:
            raise DataError(
                f"no teacher of {store.path} saw an image of {annotations}: "
                "were they run over another split?"
            )
        if with_fusion and len(chosen) > 1:
            spec = SelectionSpec(
                teachers=chosen,
                score_floor=score_floor,
                top_k=top_k,
                combine="fused",
                fusion=fusion or FusionConfig(),
            )
            scores += _score(
                Selection.open(select(store, spec, Path(folder))), annotated, annotations
            )
    return scores


def _score(selection: Selection, annotated: set[int], annotations: Path) -> list[TeacherScore]:
    scores: list[TeacherScore] = []
    for name in selection.teachers:
        covered = [i for i in selection.of(name).image_ids.tolist() if i in annotated]
        if not covered:
            continue
        rows: list[dict[str, Any]] = []
        for image_id in covered:
            boxes = selection.boxes(name, image_id)
            if boxes is not None:
                rows += to_results(image_id, boxes)
        scores.append(TeacherScore(name, coco_metrics(annotations, rows, covered)))
    return scores
