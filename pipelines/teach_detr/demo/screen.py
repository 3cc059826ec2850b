"""The end of the demo: what ran on what, how good the teachers are, what their boxes changed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from box_store import BoxStore, load_coco
from box_store.query import open_store, run_sql
from box_store.store.reader import boxes_of
from detr_kernels import choose_backend
from student_train.evaluation.evaluate import METRIC_NAMES
from student_train.evaluation.tables import percent
from student_train.machine.runtime import Runtime
from student_train.runs.metrics import read_metrics
from teach_detr.assessment.scoring import TeacherScore, score_teachers
from teach_detr.demo.places import BASELINE, TAUGHT, DemoSize, Places
from teach_detr.pictures import (
    Column,
    picture_grid,
    result_boxes,
    training_curves,
    truth_boxes,
)
from teach_detr.runs.stages import StageError, last_metrics
from teach_detr.sql.shell import as_table

SHOWN = METRIC_NAMES[:6]
_PICTURES = 4

# what each teacher is sure of in the training images: hits on annotations, and the rest, which is
# the labels that were left out, and mistakes
QUERY = """\
SELECT teacher, count(*) AS sure_boxes,
  count(*) FILTER (outcome = 'hit')  AS annotated,
  count(*) FILTER (outcome = 'miss') AS not_annotated
FROM matched(NULL, 0.5, 0.5) GROUP BY teacher ORDER BY teacher"""


@dataclass(frozen=True)
class Outcome:
    """What the demo found; `report.json` holds the same."""

    device: str
    backend: str
    reason: str
    counts: dict[str, int]
    teachers: list[TeacherScore]
    students: dict[str, dict[str, float | None]]
    rows: pa.Table
    grid: Path
    curves: Path | None
    seconds: float

    def difference(self, name: str) -> float | None:
        """With teachers minus without, of one metric, in 0..1."""
        before, after = self.students[BASELINE][name], self.students[TAUGHT][name]
        return None if before is None or after is None else after - before

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "device": self.device,
            "kernel": {"backend": self.backend, "reason": self.reason},
            "store": self.counts,
            "teachers": [score.to_json() for score in self.teachers],
            "students": self.students,
            "difference": {name: self.difference(name) for name in SHOWN},
            "sql": {"query": QUERY, "rows": self.rows.to_pylist()},
            "grid": str(self.grid),
            "curves": str(self.curves) if self.curves else None,
            "seconds": round(self.seconds, 1),
        }


def closing_screen(
    places: Places, size: DemoSize, skipped: Sequence[str], seconds: float, console: Console
) -> Outcome:
    """Gather everything, draw the pictures, write `report.json`, print the screen.

    Raises:
        StageError: something that the stages should have made is missing or has the wrong shape.
    """
    outcome = gather(places, seconds)
    check_shape(outcome, size, places)
    report = places.root / "report.json"
    report.write_text(json.dumps(outcome.to_json(), indent=1), encoding="utf-8")
    show(outcome, places, skipped, console)
    return outcome


def gather(places: Places, seconds: float) -> Outcome:
    """Read the store and both runs; draw the grid and the curves."""
    store = BoxStore.open(places.store)
    runtime = Runtime.start("auto")
    backend, reason = choose_backend(runtime.device)
    scores = score_teachers(store, places.annotations("val2017"))
    advice = ": run the demo with --fresh"
    students = {
        name: last_metrics(places.run(name), "val2017", advice) for name in (BASELINE, TAUGHT)
    }
    connection = open_store(places.store, places.annotations("train2017"))
    try:
        rows = run_sql(connection, QUERY)
        n_images, n_boxes = (
            run_sql(
                connection, "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM boxes)"
            )
            .to_pylist()[0]
            .values()
        )
    finally:
        connection.close()
    n_bytes = sum(path.stat().st_size for path in places.store.rglob("*.parquet"))
    counts = {
        "teachers": len(store.teachers),
        "images": n_images,
        "boxes": n_boxes,
        "bytes": n_bytes,
    }
    return Outcome(
        runtime.describe(),
        backend,
        reason,
        counts,
        scores,
        students,
        rows,
        _grid(places, store),
        _curves(places),
        seconds,
    )


def check_shape(outcome: Outcome, size: DemoSize, places: Places) -> None:
    """Whether everything is there that the stages promise; says nothing about how good it is.

    Raises:
        StageError: naming what is missing.
    """
    n_images = size.train_images + size.val_images
    wanted = {
        "two teachers or more in the store": outcome.counts["teachers"] >= 2,
        f"{n_images} images in the store": outcome.counts["images"] == n_images,
        "boxes in the store": outcome.counts["boxes"] > 0,
        "a score for every teacher and their fusion": len(outcome.teachers)
        == outcome.counts["teachers"] + 1,
        "a row of SQL": outcome.rows.num_rows >= 1,
        "metrics of both students": all(
            row["AP"] is not None and 0 <= row["AP"] <= 1 for row in outcome.students.values()
        ),
        "the picture grid": outcome.grid.is_file(),
        "weights of both students": all(
            (places.run(name) / "checkpoints" / "best.safetensors").is_file()
            for name in (BASELINE, TAUGHT)
        ),
    }
    missing = [what for what, there in wanted.items() if not there]
    if missing:
        raise StageError(f"the demo did not make what it should have: {'; '.join(missing)}")


def _curves(places: Places) -> Path | None:
    # before the first step both are the start student; its row in the store lacks what the
    # import's score floor left out
    start = json.loads((places.teachers / "start" / "val2017.metrics.json").read_text("utf-8"))
    first = [{"kind": "eval", "step": 0, "AP": start["AP"]}]
    return training_curves(
        places.root / "curves.png",
        {
            "baseline": [*first, *read_metrics(places.run(BASELINE) / "metrics.jsonl")],
            "+ teachers": [*first, *read_metrics(places.run(TAUGHT) / "metrics.jsonl")],
        },
    )


def _grid(places: Places, store: BoxStore) -> Path:
    """Validation scenes with much in them: truth, each teacher, both students."""
    coco = load_coco(places.annotations("val2017"))
    # the fullest scenes, by the order of the ids among equals: not chosen by how well they go
    images = sorted(coco.images, key=lambda image: -len(coco.annotations_of(image.id)))[:_PICTURES]
    ids = [image.id for image in images]
    columns = [
        *(
            (name, {i: boxes for i in ids if (boxes := boxes_of(store, name, i)) is not None})
            for name in store.teachers
        ),
        ("baseline", result_boxes(places.results(BASELINE), coco, ids)),
        ("+ teachers", result_boxes(places.results(TAUGHT), coco, ids)),
    ]
    # as many boxes as there are objects: detectors differ in how sure they say they are
    best = [
        Column(
            title, {i: each.top_k(len(coco.annotations_of(i))) for i, each in found.items()}, 0.1
        )
        for title, found in columns
    ]
    return picture_grid(
        places.root / "grid.png",
        [(image.id, places.scenes / "val2017" / image.file_name) for image in images],
        [Column("truth", {i: truth_boxes(coco, i) for i in ids}), *best],
        {category.id: category.name for category in coco.categories.items},
    )


def show(outcome: Outcome, places: Places, skipped: Sequence[str], console: Console) -> None:
    """Print the screen."""

    def say(head: str, text: str = "") -> None:
        console.print(f"{head:<10}{text}", markup=False, highlight=False, soft_wrap=True)

    console.print()
    console.rule("teach-detr demo", align="left")
    minutes, seconds = divmod(round(outcome.seconds), 60)
    say("device", outcome.device)
    say("attention", f"{outcome.backend}: {outcome.reason}")
    counts = outcome.counts
    say(
        "store",
        f"{places.store}: {counts['teachers']} teachers, {counts['images']} images, "
        f"{counts['boxes']} boxes, {counts['bytes'] / 2**10:.0f} KiB",
    )
    say("time", f"{minutes} min {seconds} s in all")
    for line in skipped:
        say("left out", line)
    console.print(_teacher_table(outcome))
    console.print(_student_table(outcome))
    say("pictures", str(outcome.grid))
    curves = "none: matplotlib is not installed (pip install 'teach-detr[plot]')"
    say("curves", str(outcome.curves) if outcome.curves else curves)
    annotations = places.annotations("train2017")
    say("query", f'teach-detr sql {places.store} --annotations {annotations} "')
    say(f'{QUERY}"')
    console.print(as_table(outcome.rows))
    say("next", "teacher-infer run --data coco --split train2017 --store boxes \\")
    say("", "  --teacher rcnn=mmdet:faster-rcnn_r50_fpn_1x_coco,weights=rcnn.pth")
    say("", "student-train train --preset dino-r50-4scale --data coco --store boxes --out run")


def _teacher_table(outcome: Outcome) -> Table:
    table = Table(title="teachers on the validation scenes, in percent", title_justify="left")
    table.add_column("teacher")
    for name in SHOWN:
        table.add_column(name, justify="right")
    for score in outcome.teachers:
        table.add_row(score.teacher, *(percent(score.metrics.values[name]) for name in SHOWN))
    return table


def _student_table(outcome: Outcome) -> Table:
    table = Table(
        title="small DINO, a third of the labels missing, in percent",
        title_justify="left",
    )
    table.add_column("student")
    for name in SHOWN:
        table.add_column(name, justify="right")
    for title, key in (("baseline", BASELINE), ("+ teachers", TAUGHT)):
        table.add_row(title, *(percent(outcome.students[key][name]) for name in SHOWN))
    table.add_row("difference", *(_signed(outcome.difference(name)) for name in SHOWN))
    return table


def _signed(value: float | None) -> str:
    return percent(None) if value is None else f"{100 * value:+.1f}"
