"""What a report tells: rows of the documented queries, and metrics of every teacher."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from box_store import BoxStore, FusionConfig
from box_store.errors import DataError, UsageError
from box_store.query import example_query, open_store, run_sql
from teach_detr.assessment.assessment import SAME_IOU, SURE_SCORE
from teach_detr.assessment.scoring import TeacherScore, score_teachers

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ReportOptions:
    """How much goes into a report.

    n_samples: images in the browser, each at most `image_px` wide and high. metric_images: AP is
    computed on at most so many annotated images, drawn with `seed`. n_rows: rows of the lists of
    missing labels and worst images.
    """

    n_samples: int = 24
    image_px: int = 480
    metric_images: int = 5000
    n_rows: int = 24
    seed: int = 0


@dataclass(frozen=True)
class Findings:
    """The numbers of a report. What needs ground truth is None without annotations.

    Lists of rows are what the example query of that name yields.
    """

    dataset: str
    n_images: int
    n_boxes: int
    teachers: list[Row]
    coverage: list[Row]
    score_histogram: list[Row]
    agreement: list[Row]
    disagreements: list[Row]
    categories: dict[int, str]
    annotations: str | None = None
    scores: list[TeacherScore] | None = None
    calibration: list[Row] | None = None
    # of calibrated scores, of the teachers that have a calibration; `calibrations` says which
    calibrated: list[Row] | None = None
    calibrations: list[Row] = field(default_factory=list)
    errors: list[Row] | None = None
    missing_labels: list[Row] | None = None
    worst_images: list[Row] | None = None
    # why there is no AP although annotations are given
    unscored: str = ""
    n_annotated: int = 0
    settings: dict[str, float] = field(
        default_factory=lambda: {"score": SURE_SCORE, "iou": SAME_IOU}
    )


def gather(
    store: Path,
    annotations: Path | None,
    options: ReportOptions,
    say: Say,
    split: str | None = None,
) -> Findings:
    """Ask the store everything that a report shows; `say` hears what is being done.

    Raises the errors of `open_store` and of reading annotations.
    """
    say("reading the store")
    opened = BoxStore.open(store)
    connection = open_store(store, annotations, split=split)
    sure = {"score": SURE_SCORE, "iou": SAME_IOU}
    try:

        def ask(name: str, **parameters: Any) -> list[Row]:
            say(f"asking {name}")
            return run_sql(connection, example_query(name).sql, parameters).to_pylist()

        (counts,) = run_sql(
            connection,
            "SELECT (SELECT count(*) FROM boxes) AS boxes, (SELECT count(DISTINCT (split, "
            "image_id)) FROM runs) AS images, (SELECT count(*) FROM dataset_images) AS annotated",
        ).to_pylist()
        found: dict[str, Any] = {
            "dataset": opened.dataset.name,
            "n_images": counts["images"],
            "n_boxes": counts["boxes"],
            "n_annotated": counts["annotated"],
            "teachers": run_sql(connection, "FROM teachers ORDER BY name").to_pylist(),
            "calibrations": run_sql(connection, "FROM calibrations").to_pylist(),
            "coverage": ask("coverage"),
            "score_histogram": ask("score_histogram"),
            "agreement": ask("agreement", **sure),
            "disagreements": ask("disagreements", **sure, top=options.n_rows),
            "categories": {item.id: item.name for item in opened.categories.items},
        }
        if annotations is not None:
            found |= {
                "annotations": annotations.name,
                "calibration": ask("calibration", iou=SAME_IOU),
                "calibrated": ask("calibration", iou=SAME_IOU, calibrated=True),
                "errors": ask("errors", **sure),
                "missing_labels": ask("missing_labels", iou=SAME_IOU, top=options.n_rows),
                "worst_images": ask("worst_images", **sure, top=options.n_rows),
            }
    finally:
        connection.close()
    if annotations is not None:
        say("computing AP")
        try:
            found["scores"] = score_teachers(
                opened,
                annotations,
                fusion=FusionConfig(),
                max_images=options.metric_images,
                seed=options.seed,
            )
        except (DataError, UsageError) as error:
            found["unscored"] = str(error)
    return Findings(**found)
