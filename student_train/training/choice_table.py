"""What was chosen for the teachers, as people read it: a table, and sentences where needed."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from box_store.selection.choosing import Choice, Taken, Verdict
from box_store.selection.rows import Rule

_WORDS: dict[Verdict, str] = {
    "as it is": "worth having",
    "chosen": "worth having",
    "left out": "not worth having",
    "not judged": "not judged",
}
_COLUMNS = (
    *("teacher", "", "nms_iou", "score_floor", "top_k"),
    *("annotated", "boxes", "right", "repeats", "found", "agreement", "by chance", "so it is"),
)
_WORDY = (0, 1, len(_COLUMNS) - 1)


def choice_table(choices: Sequence[Choice]) -> Table:
    """Two rows a teacher: what the given settings take of it, and what the chosen ones do."""
    table = Table(
        title="teachers against the training annotations (objects and boxes an image, percent)",
        title_justify="left",
    )
    for place, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if place in _WORDY else "right")
    for choice in choices:
        for row in _rows(choice):
            table.add_row(*row)
    return table


def choice_notes(choices: Sequence[Choice]) -> Iterator[str]:
    """Why teachers were left out or not judged, and what follows where none is left."""
    for choice in choices:
        if choice.reason:
            yield f"{choice.teacher}: {_WORDS[choice.verdict]}: {choice.reason}"
    if choices and not any(choice.is_taken for choice in choices):
        yield "no teacher is left: the annotations alone teach, as with --teachers none"


def _rows(choice: Choice) -> Iterator[tuple[str, ...]]:
    verdict = _WORDS[choice.verdict]
    if choice.before is None or choice.after is None:
        yield (choice.teacher, "given", *_settings(choice.rule), *["-"] * 7, verdict)
        return
    had = (
        *(choice.teacher, "given", *_settings(choice.given), f"{choice.annotated:.1f}"),
        *_figures(choice.before, f"{100 * choice.repeats:.0f}"),
    )
    if choice.verdict == "as it is":
        yield (*had, f"{choice.chance:.2f}", verdict)
        return
    yield (*had, "", "")
    yield (
        *("", "best" if choice.verdict == "left out" else "chosen", *_settings(choice.best), ""),
        *_figures(choice.after, ""),
        *(f"{choice.chance:.2f}", verdict),
    )


def _settings(rule: Rule) -> tuple[str, str, str]:
    nms = "off" if rule.nms_iou is None else f"{rule.nms_iou:g}"
    return nms, f"{rule.score_floor:g}", str(rule.top_k)


def _figures(taken: Taken, repeats: str) -> tuple[str, ...]:
    return (
        f"{taken.boxes:.1f}",
        f"{100 * taken.right:.0f}",
        repeats,
        f"{100 * taken.found:.0f}",
        f"{taken.agreement:.2f}",
    )
