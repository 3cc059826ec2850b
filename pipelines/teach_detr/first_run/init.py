"""What `teach-detr init` does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from box_store.errors import StoreError, UsageError
from box_store.forms.at_once import role
from box_store.forms.opening import DataSet, open_data
from box_store.forms.survey import SplitSurvey, survey
from box_store.places import files
from teach_detr.first_run.proposal import Machine, propose
from teach_detr.first_run.teacher import look
from teach_detr.first_run.writing import toml_lines


def write_first_run(
    source: Path,
    teachers: Sequence[str],
    out: Path,
    *,
    run: Path | None = None,
    preset: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the file; what was chosen, as JSON values.

    Raises UsageError: there is such a file, or a teacher is not understood. DataError, ConfigError,
    AdapterError, StoreError.
    """
    if out.exists():
        raise UsageError(f"{out} exists already: choose another --out")
    say(f"reading   {source}")
    data = open_data(source)
    say(data.summary)
    seen = survey(data)
    rows = {row.name: row for row in seen.splits}
    train, val = _splits(data, rows)
    if not rows[train].present:
        raise UsageError(f"{source}: no image of the split {train} is there")
    machine = Machine.here()
    proposal = propose(rows[train], machine, preset)
    looked = []
    for text in teachers:
        say(f"loading   {text}")
        found = look(text, data.split(train))
        looked.append(found)
        say(f"{found.spec.name}: {found.classes.summary()}")
        for theirs, ours in found.proposed.items():
            say(f"proposed  {found.spec.name}: {theirs} is {ours}: look at it in {out}")
    run = run or Path("runs") / (data.place.stem or "first")
    lines = toml_lines(data, (train, val), looked, proposal, machine, run)
    text = "\n".join(lines) + "\n"
    try:
        files.make_folder(out.absolute().parent)
        with files.replacing(out.absolute()) as file:
            file.write(text.encode())
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
    for warning in seen.warnings:
        say(f"warning   {warning}")
    images = sum(rows[name].present for name in (train, val) if name is not None)
    for found in looked:
        if not found.knows_any:
            say(
                f"warning   {found.spec.name} finds none of the classes and is left out: "
                f"[teachers.{found.spec.name}] in {out} says how to name them"
            )
        elif found.seconds is not None:
            minutes = images * found.seconds / 60
            say(
                f"cost      {found.spec.name}: {images} images, about {minutes:.0f} min of one core"
            )
    say(f"student   {proposal.preset} ({proposal.reason}), {proposal.steps:,} steps")
    return {
        "out": str(out),
        "form": data.form,
        "train_split": train,
        "val_split": val,
        "preset": proposal.preset,
        "settings": proposal.settings,
        "steps": proposal.steps,
        "has_teacher": any(found.knows_any for found in looked),
        "teachers": {
            found.spec.name: {
                "proposed": found.proposed,
                "unseen": list(found.classes.unseen),
                "seconds_an_image": found.seconds,
            }
            for found in looked
        },
    }


def _splits(data: DataSet, rows: dict[str, SplitSurvey]) -> tuple[str, str | None]:
    """What is trained on, and what is evaluated on."""
    names = [split.name for split in data.splits]
    train = next((name for name in names if role(name) == "train"), names[0])
    others = [name for name in names if name != train and rows[name].present]
    val = next((n for wanted in ("val", "test") for n in others if role(n) == wanted), None)
    return train, val
