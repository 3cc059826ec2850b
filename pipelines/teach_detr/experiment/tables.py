"""The outcome on a terminal, and as Markdown for a page of results."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from student_train.evaluation.evaluate import METRIC_NAMES
from student_train.evaluation.tables import percent
from teach_detr.experiment.interval import ENOUGH_SEEDS, Difference
from teach_detr.experiment.outcome import ArmSummary, Outcome
from teach_detr.terminal import table as plain_table

SHOWN = METRIC_NAMES[:6]
# below it (0..1), students have hardly begun to detect
LEARNED_AP = 0.05
COLUMNS = ("arm", *SHOWN, "truth loss", "difference in AP", "95 % interval", "so it is")
# a class is called starved where so much less of its objects has a prediction near than by the
# reference
_STARVED = 0.2
_MOST_CLASSES = 20
NEAR_TITLE = "objects with a prediction at IoU 0.5, whatever class it says, in percent"


def arm_row(name: str, arm: ArmSummary) -> tuple[str, ...]:
    """An arm's cells, in percent: AP with its deviation over seeds, then the difference."""
    deviation = arm.deviation["AP"]
    ap = percent(arm.mean["AP"]) + (f" ± {percent(deviation)}" if deviation is not None else "")
    rest = (percent(arm.mean[metric]) for metric in SHOWN[1:])
    loss = "-" if arm.truth_loss is None else f"{arm.truth_loss:.2f}"
    return (name, ap, *rest, loss, *difference_cells(arm.difference), arm.verdict)


def difference_cells(difference: Difference | None) -> tuple[str, str]:
    """+1.2 and the interval +0.4 to +2.0; dashes for the reference."""
    if difference is None:
        return "-", "-"
    return signed(difference.mean), f"{signed(difference.low)} to {signed(difference.high)}"


def signed(value: float) -> str:
    """0..1 as percent points with their sign."""
    return f"{100 * value:+.1f}"


def summary_lines(outcome: Outcome) -> list[str]:
    """Sentences a condition: what came out best, and whether that can be told from chance."""
    lines = []
    for condition, arms in outcome.conditions.items():
        compared = {name: arm for name, arm in arms.items() if arm.difference is not None}
        if not compared or outcome.reference not in arms:
            continue
        best = max(compared, key=lambda name: compared[name].difference.mean)  # type: ignore[union-attr]
        gap = compared[best].difference
        assert gap is not None
        interval = f"{signed(gap.low)} to {signed(gap.high)}"
        lines.append(
            f"{condition}: best is {best}, {signed(gap.mean)} AP over {outcome.reference} "
            f"({interval}): {compared[best].verdict}"
        )
        ap = arms[outcome.reference].mean["AP"] or 0.0
        if ap < LEARNED_AP:
            lines.append(
                f"{condition}: {outcome.reference} reaches AP {percent(ap)} only, too little to "
                "tell arms apart by. Train longer, or start from weights: --init, or "
                "student.settings.model.backbone_weights=timm"
            )
        lines += [f"{condition}: {line}" for line in starved_lines(arms, outcome.reference)]
    for condition, alarms in outcome.same_arm.items():
        for found in alarms:
            lines.append(
                f"{condition}: {found.n_seeds} seeds of {outcome.reference} are called better or "
                f"worse than {found.n_seeds} others in {100 * found.share:.1f} % of the deals of "
                f"its {found.n_runs} runs; half an interval is {100 * found.half_width:.1f}"
            )
    counts = [len(arm.seeds) for arms in outcome.conditions.values() for arm in arms.values()]
    n_seeds = max(counts, default=0)
    if n_seeds == 1:
        lines.append("one seed says nothing of others: no arm is called better or worse")
    elif 0 < n_seeds < ENOUGH_SEEDS:
        lines.append(f"{n_seeds} seeds are few: with {ENOUGH_SEEDS} intervals are much narrower")
    return lines


def starved_lines(arms: Mapping[str, ArmSummary], reference: str) -> list[str]:
    """Classes that an arm starves of queries, a sentence an arm."""
    lines = []
    base = arms[reference]
    for name, arm in arms.items():
        gap = arm.difference
        if gap is None:
            continue
        starved = [
            f"{label} {percent(base.near.get(label))} -> {percent(share)}"
            for label, share in arm.near.items()
            if share is not None and (base.near.get(label) or 0.0) - share > _STARVED
        ]
        if starved:
            lines.append(
                f"{name} starves classes of predictions: share of objects with one at IoU 0.5, in "
                f"percent: {', '.join(starved)}"
            )
    return lines


def near_rows(arms: Mapping[str, ArmSummary]) -> list[tuple[str, ...]]:
    """A row an arm: by class, the share of objects with a prediction of any class at IoU 0.5, in
    percent, after a row of names; nothing for very many classes.
    """
    names = list(next(iter(arms.values())).near)
    if not 0 < len(names) <= _MOST_CLASSES:
        return []
    rows = [
        (arm, *(percent(found.near.get(name)) for name in names)) for arm, found in arms.items()
    ]
    return [("arm", *names), *rows]


def print_outcome(outcome: Outcome, console: Console) -> None:
    """A table a condition, then what failed, then sentences."""
    for condition, arms in outcome.conditions.items():
        table = Table(title=f"{condition}, in percent", title_justify="left")
        for i, column in enumerate(COLUMNS):
            table.add_column(column, justify="right" if 0 < i < len(COLUMNS) - 1 else "left")
        for name, arm in arms.items():
            table.add_row(*arm_row(name, arm))
        console.print(table)
        if rows := near_rows(arms):
            head, *body = rows
            console.print(plain_table(head, body, numbers=range(1, len(head)), title=NEAR_TITLE))
    for name, error in outcome.failed.items():
        console.print(f"failed    {name}: {error}", markup=False, highlight=False, soft_wrap=True)
    for line in summary_lines(outcome):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    out = outcome.config["out"]
    console.print(f"page      {out}/page.html", highlight=False, soft_wrap=True)
    console.print(
        f"numbers   {out}/results.json, {out}/results.parquet", highlight=False, soft_wrap=True
    )


def markdown(outcome: Outcome) -> str:
    """The tables in Markdown."""
    parts = []
    for condition, arms in outcome.conditions.items():
        n_seeds = max(len(arm.seeds) for arm in arms.values())
        parts.append(f"**{condition}** ({n_seeds} seeds, in percent)\n")
        parts.append(_markdown_table(COLUMNS, [arm_row(n, arm) for n, arm in arms.items()]))
        if rows := near_rows(arms):
            parts.append(f"{NEAR_TITLE[0].upper()}{NEAR_TITLE[1:]}:\n")
            parts.append(_markdown_table(rows[0], rows[1:]))
    return "\n".join(parts)


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = f"| {' | '.join(columns)} |"
    line = "| --- |" + " ---: |" * (len(columns) - 1)
    body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, line, *body, ""])
