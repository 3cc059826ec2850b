"""Sections on each teacher: where it comes from, how good it is, how sure it is."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from box_store.calibration.reliability import calibration_error
from student_train.evaluation.coco_metrics import METRIC_NAMES
from student_train.evaluation.tables import percent
from teach_detr.assessment.assessment import SURE_SCORE
from teach_detr.assessment.scoring import FUSED
from teach_detr.report import charts
from teach_detr.report.findings import Findings, Row
from teach_detr.report.layout import NO_TRUTH, by_teacher, note, section, swatch, table
from teach_detr.report.markup import Child, Markup, element

# classes shown at once; the rest unfolds
_CLASSES_OPEN = 20


def teachers(found: Findings) -> Markup:
    """Who labelled, with what, under which licence, and how far."""
    if not found.teachers:
        return section("teachers", "Teachers", note("The store has no teacher yet."))
    ok = {row["teacher"]: row for row in found.coverage if row["status"] == "ok"}
    failed: dict[str, list[Row]] = {}
    for row in found.coverage:
        if row["status"] != "ok":
            failed.setdefault(row["teacher"], []).append(row)
    rows = []
    for row in found.teachers:
        name, seen = row["name"], ok.get(row["name"], {})
        n_seen, seconds = seen.get("images", 0), seen.get("seconds")
        rows.append(
            (
                swatch(found, name),
                row["licence"],
                row["adapter"],
                row["model"],
                element("code", row["weights_sha256"][:12] or "-"),
                f"{row['units_done']} of {row['n_units']}",
                n_seen,
                seen.get("boxes", 0),
                f"{1000 * seconds / n_seen:.0f} ms" if n_seen and seconds is not None else "-",
                "; ".join(
                    f"{bad['images']} {bad['status']} ({bad['example_error']})"
                    for bad in failed.get(name, [])
                )
                or "none",
            )
        )
    columns = (
        *("teacher", "licence", "adapter", "model", "weights", "units done", "images"),
        *("boxes", "time an image", "failed images"),
    )
    return section(
        "teachers",
        "Teachers",
        table("Provenance and licences", columns, rows),
        [_details(found, row) for row in found.teachers],
    )


def _details(found: Findings, row: Row) -> Markup:
    mapped = json.loads(row["class_map"])
    dropped = sorted(name for name, target in mapped.items() if target is None)
    facts: list[tuple[str, Child]] = [
        ("fingerprint", element("code", row["fingerprint"])),
        ("weights, sha256", element("code", row["weights_sha256"] or "-")),
        ("classes", f"{len(mapped) - len(dropped)} of {len(mapped)} map to the data set"),
        ("classes left out", ", ".join(dropped) or "none"),
        ("options", _pairs(row["options"])),
        ("versions", _pairs(row["versions"])),
    ]
    terms = [(element("dt", name), element("dd", value)) for name, value in facts]
    summary = element("summary", "Details of ", swatch(found, row["name"]))
    return element("details", summary, element("dl", terms))


def _pairs(text: str) -> str:
    values: dict[str, Any] = json.loads(text)
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "none"


def precision(found: Findings) -> Markup:
    """AP of every teacher and of their fusion, over all and by size of the objects."""
    title = "Average precision"
    if found.scores is None:
        return section("ap", title, note(found.unscored or NO_TRUTH))
    n_images = max(score.metrics.n_images for score in found.scores)
    rows = [
        (
            swatch(found, score.teacher),
            score.metrics.n_images,
            score.metrics.n_detections,
            *(percent(score.metrics.values[name]) for name in METRIC_NAMES),
        )
        for score in found.scores
    ]
    remarks = [
        "COCO box metrics by pycocotools, in percent, each teacher over the annotated images that "
        "it saw. s, m and l are objects below 32², below 96² and from 96² square pixels. The "
        "fusion is class-wise suppression over all teachers."
    ]
    if n_images < found.n_annotated:
        remarks.append(
            f"Computed on {n_images} images of the {found.n_annotated} that are annotated."
        )
    columns = ("teacher", "images", "boxes", *METRIC_NAMES)
    return section("ap", title, table("COCO metrics", columns, rows), note(" ".join(remarks)))


def classes(found: Findings) -> Markup | None:
    """AP of each class and teacher as bars, classes with most objects first."""
    if found.scores is None:
        return None
    scores = [score for score in found.scores if score.teacher != FUSED]
    per_teacher = {
        score.teacher: {row.category_id: row for row in score.metrics.per_class} for score in scores
    }
    n_truth: dict[int, int] = {}
    for per_class in per_teacher.values():
        for key, row in per_class.items():
            n_truth[key] = max(n_truth.get(key, 0), row.n_truth)
    order = sorted((key for key, n in n_truth.items() if n), key=lambda key: (-n_truth[key], key))
    tones = {row["name"]: charts.colour(at) for at, row in enumerate(found.teachers)}

    def rows(keys: Sequence[int]) -> Iterable[Sequence[Child]]:
        for key in keys:
            values = {name: rows.get(key) for name, rows in per_teacher.items()}
            yield (
                found.categories.get(key, str(key)),
                n_truth[key],
                *(
                    (
                        element("span", percent(row.AP if row else None), class_="figure"),
                        charts.bar(row.AP if row else None, tones[name]),
                    )
                    for name, row in values.items()
                ),
            )

    columns = ("class", "objects", *per_teacher)
    parts = [table("AP by class, in percent", columns, rows(order[:_CLASSES_OPEN]))]
    if len(order) > _CLASSES_OPEN:
        rest = table("AP of the other classes, in percent", columns, rows(order[_CLASSES_OPEN:]))
        summary = element("summary", f"{len(order) - _CLASSES_OPEN} classes with fewer objects")
        parts.append(element("details", summary, rest))
    return section("classes", "Classes", parts)


def scores(found: Findings) -> Markup:
    """How each teacher's scores are spread."""
    return section(
        "scores",
        "Scores",
        _figures(
            found,
            found.score_histogram,
            lambda rows, tone, name: charts.histogram(
                rows, tone, f"Boxes of {name} by score, logarithmic"
            ),
            ("from score", "boxes"),
            lambda row: (f"{row['from_score']:.2f}", row["boxes"]),
        ),
        note("Boxes by score; heights are logarithmic."),
    )


def calibration(found: Findings) -> Markup:
    """Whether a score is the chance of being right."""
    title = "Calibration"
    if found.calibration is None:
        return section("calibration", title, note(NO_TRUTH))
    calibrated = by_teacher(found.calibrated or [])
    errors = [
        (
            swatch(found, name),
            *(
                percent(calibration_error(bands, start))
                for start in (0.0, SURE_SCORE)
                for bands in (rows, calibrated.get(name, []))
            ),
        )
        for name, rows in by_teacher(found.calibration).items()
    ]
    columns = (
        *("teacher", "all boxes", "all boxes, calibrated"),
        *("from 0.3", "from 0.3, calibrated"),
    )
    return section(
        "calibration",
        title,
        _figures(
            found,
            found.calibration,
            lambda rows, tone, name: charts.reliability(
                rows, tone, f"Precision of {name} by score, in ten bands", calibrated.get(name, [])
            ),
            ("from score", "boxes", "mean score", "precision"),
            lambda row: (
                f"{row['from_score']:.1f}",
                row["boxes"],
                f"{row['mean_score']:.3f}",
                f"{row['precision']:.3f}",
            ),
        ),
        note(
            f"How often a box is right (its object overlaps by IoU {found.settings['iou']:g}) "
            "over how sure the teacher was. Below the diagonal the teacher is too sure of itself."
            + " The dashed line is that of its calibrated scores."
            * bool(calibrated)
        ),
        table("Expected calibration error, in percent", columns, errors),
        _calibrations(found),
    )


def _calibrations(found: Findings) -> Markup:
    """What the stored calibrations promise on images that their fit did not see."""
    if not found.calibrations:
        return note("No calibration is stored; `teach-detr calibrate` makes them.")
    rows = [
        (
            swatch(found, row["teacher"]),
            row["method"],
            row["annotations"],
            row["n_boxes"],
            *(percent(row[key]) for key in ("error", "calibrated_error")),
            *(percent(row[key]) for key in ("brier", "calibrated_brier")),
        )
        for row in found.calibrations
    ]
    columns = (
        *("teacher", "method", "annotations", "boxes", "error", "error, calibrated"),
        *("Brier score", "Brier score, calibrated"),
    )
    return table("Stored calibrations, on images held out from the fit, in percent", columns, rows)


def _figures(
    found: Findings,
    rows: Sequence[Row],
    draw: Callable[[Sequence[Row], str, str], Markup],
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[Child]],
) -> Markup:
    """A chart a teacher, each with its numbers folded below it."""
    each = by_teacher(rows)
    if not each:
        return note("No boxes.")
    tones = {row["name"]: charts.colour(at) for at, row in enumerate(found.teachers)}
    figures = [
        element(
            "figure",
            element("figcaption", swatch(found, name)),
            draw(of_one, tones[name], name),
            element(
                "details",
                element("summary", "Numbers"),
                table(f"Numbers of {name}", columns, map(cells, of_one)),
            ),
        )
        for name, of_one in each.items()
    ]
    return element("div", figures, class_="figures")
