"""The page of an experiment: one HTML file that loads nothing."""

import base64
import json
from pathlib import Path

from box_store.places.files import replacing
from student_train.evaluation.tables import percent
from teach_detr.experiment.figures import Figure, write_figures
from teach_detr.experiment.grid import Grid
from teach_detr.experiment.outcome import Outcome
from teach_detr.experiment.tables import (
    COLUMNS,
    NEAR_TITLE,
    SHOWN,
    arm_row,
    near_rows,
    summary_lines,
)
from teach_detr.report.document import document
from teach_detr.report.layout import note, section, table
from teach_detr.report.markup import Child, Markup, element


def write_page(outcome: Outcome, grid: Grid, path: Path) -> None:
    """Draw the figures, and write the page with them inside; whole or not at all."""
    page = render(outcome, write_figures(outcome, grid))
    with replacing(path) as file:
        file.write(page.encode())


def render(outcome: Outcome, figures: list[Figure]) -> str:
    """The page as text."""
    sections = [("outcome", "Outcome", _outcome(outcome))]
    for i, figure in enumerate(figures):
        sections.append((f"figure{i}", figure.title, _figure(figure)))
    sections += [("teachers", "Teachers", _teachers(outcome)), ("runs", "Runs", _runs(outcome))]
    sections.append(("made", "How it was made", _made(outcome)))
    main = [section(key, title, children) for key, title, children in sections]
    links = [(key, title) for key, title, _ in sections]
    return document("Do teachers help?", _facts(outcome), links, main)


def _facts(outcome: Outcome) -> Markup:
    n = len(outcome.conditions)
    facts = [
        f"{n} condition" + "s" * (n != 1),
        f"{len(outcome.runs)} runs",
        f"compared with the arm {outcome.reference}",
        outcome.device,
    ]
    return element("p", " · ".join(facts))


def _outcome(outcome: Outcome) -> list[Child]:
    parts: list[Child] = [element("p", line) for line in summary_lines(outcome)]
    for condition, arms in outcome.conditions.items():
        rows = [arm_row(name, arm) for name, arm in arms.items()]
        parts.append(table(f"{condition}, in percent", COLUMNS, rows))
        if near := near_rows(arms):
            parts.append(table(f"{condition}: {NEAR_TITLE}", near[0], near[1:]))
    parts.append(
        note(
            "AP is the mean over seeds with its standard deviation. A difference is paired: the "
            "same seed and the same images; its interval is Student's t over the seeds, their "
            "spread pooled over the experiment, with a bootstrap over the images. Better and worse "
            "are said only where it leaves out 0. Truth loss is the loss on the annotations at the "
            "end of training: an alarm, no verdict, above all where labels are missing."
        )
    )
    if outcome.failed:
        parts.append(table("Runs that failed", ("run", "why"), list(outcome.failed.items())))
    return parts


def _figure(figure: Figure) -> list[Child]:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    image = element(
        "img", src=f"data:image/png;base64,{data}", alt=figure.caption, class_="picture"
    )
    return [image, note(figure.caption)]


def _teachers(outcome: Outcome) -> Child:
    if not outcome.teachers:
        return note("No teacher saw the evaluation split, so how good they are is not known.")
    rows = [
        (str(row["teacher"]), *(percent(row[name]) for name in SHOWN)) for row in outcome.teachers
    ]
    return table("Teachers on the evaluation split, in percent", ("teacher", *SHOWN), rows)


def _runs(outcome: Outcome) -> Child:
    rows = [
        (
            run.cell.name,
            *(percent(run.metrics[name]) for name in SHOWN),
            "-" if run.seconds is None else f"{run.seconds:.0f}",
        )
        for run in outcome.runs
    ]
    inner = table("Every run, in percent", ("run", *SHOWN, "seconds"), rows)
    return element("details", element("summary", f"All {len(rows)} runs"), inner)


def _made(outcome: Outcome) -> list[Child]:
    known = {**outcome.versions, **(outcome.source or {})}
    facts = ", ".join(f"{name} {value}" for name, value in known.items())
    config = element("pre", json.dumps(outcome.config, indent=1))
    return [note(facts), element("details", element("summary", "Configuration"), config)]
