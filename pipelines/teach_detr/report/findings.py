"""What a report tells: rows of the documented queries, and metrics of every teacher."""

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from box_store import BoxStore, FusionConfig
from box_store.errors import DataError, UsageError
from box_store.query import example_query, open_store, run_sql
from student_train.coco_metrics import read_annotations
from teach_detr.teachers import TeacherScore, score_teachers

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Row = dict[str, Any]
Say = Callable[[str], None]

# boxes below it are kept by teachers for AP, and would be noise in what people look at
SURE_SCORE = 0.3
SAME_IOU = 0.5


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
    errors: list[Row] | None = None
    missing_labels: list[Row] | None = None
    worst_images: list[Row] | None = None
    # why there is no AP although annotations are given
    unscored: str = ""
    n_annotated: int = 0
    settings: dict[str, float] = field(
        default_factory=lambda: {"score": SURE_SCORE, "iou": SAME_IOU}
    )


def gather(store: Path, annotations: Path | None, options: ReportOptions, say: Say) -> Findings:
    """Ask the store everything that a report shows; `say` hears what is being done.

    Raises the errors of `open_store` and of reading annotations.
    """
    say("reading the store")
    opened = BoxStore.open(store)
    connection = open_store(store, annotations)
    sure = {"score": SURE_SCORE, "iou": SAME_IOU}
    seen: list[int] = []
    try:

        def ask(name: str, **parameters: Any) -> list[Row]:
            say(f"asking {name}")
            return run_sql(connection, example_query(name).sql, parameters).to_pylist()

        (counts,) = run_sql(
            connection,
            "SELECT (SELECT count(*) FROM boxes) AS boxes, (SELECT count(DISTINCT image_id) "
            "FROM runs) AS images, (SELECT count(*) FROM dataset_images) AS annotated",
        ).to_pylist()
        found: dict[str, Any] = {
            "dataset": opened.dataset.name,
            "n_images": counts["images"],
            "n_boxes": counts["boxes"],
            "n_annotated": counts["annotated"],
            "teachers": run_sql(connection, "FROM teachers ORDER BY name").to_pylist(),
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
                "errors": ask("errors", **sure),
                "missing_labels": ask("missing_labels", iou=SAME_IOU, top=options.n_rows),
                "worst_images": ask("worst_images", **sure, top=options.n_rows),
            }
            seen = _annotated_and_seen(connection)
    finally:
        connection.close()
    if annotations is not None:
        say("computing AP")
        try:
            found["scores"] = _scores(opened, annotations, seen, options)
        except (DataError, UsageError) as error:
            found["unscored"] = str(error)
    return Findings(**found)


def _annotated_and_seen(connection: "DuckDBPyConnection") -> list[int]:
    rows = run_sql(
        connection,
        "SELECT DISTINCT image_id FROM runs JOIN dataset_images USING (image_id) "
        "WHERE status = 'ok' ORDER BY image_id",
    )
    return rows["image_id"].to_pylist()


def _scores(
    store: BoxStore, annotations: Path, seen: list[int], options: ReportOptions
) -> list[TeacherScore]:
    if len(seen) <= options.metric_images:
        return score_teachers(store, annotations, fusion=FusionConfig())
    # all of COCO's training images would be ten million rows of Python
    chosen = set(random.Random(options.seed).sample(seen, options.metric_images))
    table = read_annotations(annotations)
    part = {
        "images": [row for row in table["images"] if row["id"] in chosen],
        "annotations": [row for row in table["annotations"] if row["image_id"] in chosen],
        "categories": table["categories"],
    }
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as folder:
        path = Path(folder) / annotations.name
        path.write_text(json.dumps(part), encoding="utf-8")
        return score_teachers(store, path, fusion=FusionConfig())


def calibration_error(rows: list[Row], from_score: float = 0.0) -> float | None:
    """Expected calibration error of one teacher's rows of the query `calibration`, 0..1.

    The mean of |precision - mean score| over the bands from `from_score` on, weighted by their
    boxes (Naeini et al. 2015, for detections at one IoU); None where there are none.
    """
    bands = [row for row in rows if row["from_score"] >= from_score - 1e-9]
    n_boxes = sum(row["boxes"] for row in bands)
    if not n_boxes:
        return None
    gaps = sum(row["boxes"] * abs(row["precision"] - row["mean_score"]) for row in bands)
    return gaps / n_boxes
