"""What `teach-detr teachers` and `teach-detr calibrate` print, in percent."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from box_store.calibration.score_map import Calibration, Part
from box_store.selection.floors import Floor
from student_train.evaluation.coco_metrics import METRIC_NAMES
from student_train.evaluation.tables import percent
from student_train.training.choice_table import choice_notes, choice_table
from teach_detr.assessment.assessment import Assessment, Row
from teach_detr.terminal import table

# of COCO's own labels, teachers share six in ten of their sure mistakes; of the same labels without
# four in ten of the objects, more than eight in ten
_NOISY_SHARE = 0.75
_MISTAKES = 20


def assessment_tables(found: Assessment, classes: bool) -> Iterator[Table | str]:
    """What an assessment says; AP of every class where `classes` are asked for."""
    recalls = ("ARs", "ARm", "ARl")
    yield table(
        ("teacher", "images", "boxes", *METRIC_NAMES, *recalls),
        [
            (
                score.teacher,
                str(score.metrics.n_images),
                str(score.metrics.n_detections),
                *(percent(score.metrics.values[name]) for name in METRIC_NAMES),
                *(percent(score.metrics.recall_by_size.get(name)) for name in recalls),
            )
            for score in found.scores
        ],
        numbers=range(1, 13),
        title="AP and recall, in percent",
    )
    yield table(
        ("teacher", "all boxes", "calibrated", "from 0.3", "calibrated"),
        [
            (
                name,
                *(percent(value) for value in (one.error, one.calibrated_error)),
                *(percent(value) for value in (one.sure_error, one.sure_calibrated_error)),
            )
            for name, one in found.surety.items()
        ],
        numbers=range(1, 5),
        title="expected calibration error, in percent",
    )
    if found.agreement:
        share = {(row["teacher"], row["other"]): row["share"] for row in found.agreement}
        names = list(found.surety)
        yield table(
            ("of the boxes of", *names),
            [(one, *(percent(share.get((one, other))) for other in names)) for one in names],
            numbers=range(1, 1 + len(names)),
            title="boxes from 0.3 that another teacher has too, in percent",
        )
    if found.fusion is not None:
        gain = found.fusion
        yield (
            f"fusion    AP {percent(gain.fused_ap)}, {100 * gain.gain:+.1f} over the best teacher, "
            f"{gain.best}, on {gain.n_images} images; without "
            + ", ".join(f"{name} {-100 * value:+.1f}" for name, value in gain.added.items())
        )
    if classes:
        yield _class_table(found)
    if found.choices:
        yield choice_table(found.choices)
    for line in choice_notes(found.choices):
        yield f"verdict   {line}"
    for line in found.notes:
        yield f"note      annotations: {line}"


def _class_table(found: Assessment) -> Table:
    by_name = {
        score.teacher: {row.name: row for row in score.metrics.per_class} for score in found.scores
    }
    counts: dict[str, int] = {}
    for per_class in by_name.values():
        for name, row in per_class.items():
            counts[name] = max(counts.get(name, 0), row.n_truth)
    rows = [
        (name, str(n), *(percent(per_class[name].AP) for per_class in by_name.values()))
        for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if n
    ]
    columns = ("class", "objects", *by_name)
    return table(columns, rows, numbers=range(1, len(columns)), title="AP by class, in percent")


def calibration_tables(found: Sequence[Calibration]) -> Iterator[Table | str]:
    """A line a teacher, and its reliability before and after."""
    columns = ("teacher", "images", "boxes", "right", "ECE", "after", "Brier", "after")
    rows = []
    for calibration in found:
        part = calibration.held or calibration.fitted
        rows.append(
            (
                calibration.teacher,
                str(part.n_images),
                str(part.n_boxes),
                percent(part.n_hits / part.n_boxes if part.n_boxes else None),
                percent(part.raw.calibration_error),
                percent(part.calibrated.calibration_error),
                percent(part.raw.brier),
                percent(part.calibrated.brier),
            )
        )
    where = "on images held out" if all(c.held for c in found) else "on the images fitted to"
    suppressed = {"no suppression" if c.nms_iou is None else f"NMS at {c.nms_iou:g}" for c in found}
    title = f"{where}, after {' or '.join(sorted(suppressed))}, in percent"
    yield table(columns, rows, numbers=range(1, 8), title=title)
    for calibration in found:
        yield _reliability(calibration, calibration.held or calibration.fitted)
    yield (
        f"A box is right if it finds an annotated object of its class at IoU {found[0].iou:g}. "
        "Where objects lack annotations, right boxes count as wrong and calibrated scores come out "
        "too low."
    )


def floors_table(teacher: str, floors: Sequence[Floor]) -> Table:
    """The floors that annotations propose for a teacher."""
    rows = [
        (
            row.name,
            str(row.objects),
            "-" if row.floor is None else f"{row.floor:.3f}",
            *(percent(value) for value in (row.precision, row.recall, row.f1)),
        )
        for row in floors
    ]
    columns = ("class", "objects", "floor", "right", "found", "F1")
    return table(columns, rows, numbers=range(1, 6), title=f"floors of {teacher}, in percent")


def label_notes(mistakes: Sequence[Row]) -> Iterator[str]:
    """What rows of the example query `shared_mistakes` say about the annotations."""
    for row in mistakes:
        if row["mistakes"] >= _MISTAKES and row["share"] >= _NOISY_SHARE:
            yield (
                f"{row['teacher']}: {row['shared']} of {row['mistakes']} mistakes that it is sure "
                "of are another teacher's too, so these annotations probably miss objects "
                "(`--example missing_labels` shows which): calibrate with complete ones if you can"
            )


def _reliability(calibration: Calibration, part: Part) -> Table:
    after = {band["from_score"]: band for band in part.calibrated.bands}
    before = {band["from_score"]: band for band in part.raw.bands}
    rows = []
    for start in sorted(before.keys() | after):
        cells: list[str] = [f"{start:.1f}"]
        for bands in (before, after):
            band = bands.get(start)
            cells += (
                [str(band["boxes"]), percent(band["mean_score"]), percent(band["precision"])]
                if band
                else ["0", "-", "-"]
            )
        rows.append(cells)
    columns = ("from", "boxes", "score", "right", "boxes after", "score after", "right after")
    said = calibration.map.method
    if said == "temperature":
        said += f" {calibration.map.temperature:.3f}"
    return table(
        columns, rows, numbers=range(7), title=f"{calibration.teacher}: {said}, in percent"
    )
