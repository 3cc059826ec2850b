"""The command `data`: what a folder of photos and labels is, and the same as COCO."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from teach_detr.terminal import AsJson, open_console, print_json, said_progress, table

if TYPE_CHECKING:
    from box_store.forms.opening import DataSet
    from box_store.forms.survey import Survey
    from box_store.outgoing.coco import Written
    from box_store.outgoing.corrections import Changes
    from box_store.outgoing.sheet import Account

_SHOWN_CLASSES = 12


def data(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder or annotation file; options behind commas: photos,form=voc,difficult=drop"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Also write it here, a new folder; images are linked")
    ] = None,
    to: Annotated[
        Literal["coco", "yolo", "voc", "labelme", "cvat", "label-studio"],
        typer.Option("--as", help="With --out: the form to write"),
    ] = "coco",
    val: Annotated[
        float | None,
        typer.Option(help="With --out: cut off this share of the images as the split `val`"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the images that are cut off")] = 0,
    corrections: Annotated[
        Path | None,
        typer.Option(help="What a label tool exported of some of the images: these labels count"),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(help="The review that was corrected: says which guesses were confirmed"),
    ] = None,
    form: Annotated[
        str | None, typer.Option(help="What it is, where that is not seen by itself")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, where they lie elsewhere")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="CSV: what the columns are, file,class,xmin,ymin,xmax,ymax")
    ] = None,
    difficult: Annotated[
        str | None,
        typer.Option(help="Pascal VOC: keep, drop, or crowd (ignored) what is difficult"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a data set is: form, splits, images, classes, boxes, and probable mistakes.

    COCO, YOLO, Pascal VOC, CSV, CVAT, Label Studio, labelme, Open Images, CrowdHuman, Hugging Face
    parquet and image folders, or photos alone. `--data` of the other commands takes the same, as it
    lies; nothing has to be converted. --out writes it in another form, for trainers and label
    tools.

    Example: teach-detr data bccd --out bccd-yolo --as yolo --val 0.2
    """
    from box_store.errors import UsageError
    from box_store.forms.opening import open_data
    from box_store.forms.survey import survey
    from box_store.outgoing.coco import write_coco
    from box_store.outgoing.data_set import write_folder

    if val is not None and out is None:
        raise UsageError("--val cuts off a split of what is written: give --out DIR too")
    if review is not None and corrections is None:
        raise UsageError("--review says what --corrections DIR were made of, which are missing")
    if to != "coco" and out is None:
        raise UsageError(f"--as {to} is the form of what is written: give --out DIR too")
    given = {"form": form, "images": images, "difficult": difficult}
    given["columns"] = None if columns is None else columns.replace(",", ":")
    words = [f",{key}={value}" for key, value in given.items() if value is not None]
    console = Console(stderr=True)
    console.print(f"reading   {source}", markup=False, highlight=False, soft_wrap=True)
    found = open_data(f"{source}{''.join(words)}")
    console.print(found.summary, markup=False, highlight=False, soft_wrap=True)
    changes = None
    if corrections is not None:
        changes, found = _corrected(found, corrections, review, console)
    seen = survey(found, said_progress(console, "images looked at"))
    if out is None:
        written: list[Written] | Account = []
    elif to == "coco":
        told = said_progress(console, "images written")
        origins = None if changes is None else changes.origins
        written = write_coco(found, out, val=val, seed=seed, origins=origins, progress=told)
    else:
        written = write_folder(found, to, out, val=val, seed=seed)
    if as_json:
        changed = {} if changes is None else {"corrections": changes.to_json()}
        print_json(seen.to_json() | changed | {"written": _written_json(written)})
        return
    _print(seen, open_console())
    if changes is not None:
        _print_changes(changes, open_console())
    _print_written(written, out, open_console())


def _corrected(
    found: "DataSet", corrections: Path, review: Path | None, console: Console
) -> "tuple[Changes, DataSet]":
    """What people changed, and the data set with it."""
    from box_store.forms.opening import open_data
    from box_store.outgoing.corrections import apply, read_suggestions

    corrected = open_data(corrections)
    console.print(corrected.summary, markup=False, highlight=False, soft_wrap=True)
    suggestions = None if review is None else read_suggestions(review)
    made, changes = apply(found, corrected, suggestions)
    return changes, made


def _print_changes(changes: "Changes", console: Console) -> None:
    columns = ("kept", "moved", "renamed", "added", "removed")
    rows = [
        (name, *(f"{row[change]:,}" for change in columns))
        for name, row in sorted(changes.counts.items())
    ]
    if rows:
        console.print(table(("corrections", *columns), rows, numbers=range(1, 6)))
    _line(console, f"corrected {changes.images} images, {changes.changed} of them changed")
    if changes.confirmed or changes.refused:
        told = ", ".join(f"{n} of {name}" for name, n in changes.confirmed.items()) or "none"
        _line(console, f"guesses   confirmed: {told}; refused: {changes.refused}")
    if changes.unfinished:
        _line(
            console,
            f"note      {changes.unfinished} images are not finished (guesses that nobody "
            "confirmed, or no annotation): they stay as they were",
        )
    for kind, count in changes.others.counts.items():
        examples = "; ".join(changes.others.examples[kind][:2])
        _line(console, f"note      corrections: {count} x {kind} ({examples})")


def _written_json(written: "list[Written] | Account") -> Any:
    if isinstance(written, list):
        return [{**asdict(row), "annotations": str(row.annotations)} for row in written]
    return asdict(written)


def _print(seen: "Survey", console: Console) -> None:
    rows = []
    for split in seen.splits:
        full = split.objects_per_image
        rows.append(
            (
                split.name,
                f"{split.images:,}",
                f"{split.missing:,}",
                f"{split.unreadable:,}",
                f"{split.unlabelled:,}",
                f"{split.without_objects:,}",
                f"{split.boxes:,}",
                f"{split.crowds:,}",
                f"{full.get('50%', 0)} / {full.get('100%', 0)}",
                f"{split.smallest[0]}x{split.smallest[1]} to {split.largest[0]}x{split.largest[1]}",
            )
        )
    columns = ("split", "images", "missing", "unreadable", "unlabelled", "empty", "boxes", "crowds")
    console.print(
        table(
            (*columns, "objects an image (median / most)", "sizes"),
            rows,
            numbers=tuple(range(1, 8)),
        )
    )
    _print_classes(seen, console)
    for split in seen.splits:
        for kind, count in split.problems.items():
            examples = "; ".join(split.examples.get(kind, [])[:2])
            _line(console, f"note      {split.name}: {count} x {kind} ({examples})")
    for note in seen.data.notes:
        _line(console, f"note      {note}")
    for warning in (*seen.warnings, *_against_presets(seen)):
        _line(console, f"warning   {warning}")


def _print_classes(seen: "Survey", console: Console) -> None:
    names = list(dict.fromkeys(name for split in seen.splits for name in split.classes))
    counts = {name: [split.classes.get(name, 0) for split in seen.splits] for name in names}
    order = sorted(names, key=lambda name: -sum(counts[name]))
    shown = order[:_SHOWN_CLASSES]
    rows = [(name, *(f"{count:,}" for count in counts[name])) for name in shown]
    if len(order) > len(shown):
        others = [counts[name] for name in order[_SHOWN_CLASSES:]]
        rest = [sum(column) for column in zip(*others, strict=True)]
        rows.append((f"{len(order) - len(shown)} more", *(f"{count:,}" for count in rest)))
    if rows:
        splits = [split.name for split in seen.splits]
        console.print(table(("class", *splits), rows, numbers=tuple(range(1, len(splits) + 1))))


def _against_presets(seen: "Survey") -> list[str]:
    """Images with more objects than students of the presets have queries."""
    from student_train.presets import all_presets, load_preset

    most = max((split.objects_per_image.get("100%", 0) for split in seen.splits), default=0)
    queries: dict[int, list[str]] = {}
    for name in all_presets():
        n = getattr(load_preset(name).model, "n_queries", None)
        if isinstance(n, int) and n < most:
            queries.setdefault(n, []).append(name)
    return [
        f"an image has {most} objects, and {len(names)} presets have {n} queries an image "
        f"({', '.join(names[:3])}, ...): they cannot find all of them"
        for n, names in sorted(queries.items())
    ]


def _print_written(written: "list[Written] | Account", out: Path | None, console: Console) -> None:
    if not isinstance(written, list):
        missing = f", {written.missing} missing images left out" if written.missing else ""
        text = f"{out}: {written.images} images, {written.marks} boxes{missing}"
        _line(console, f"written   {text}")
        for kind, count in written.lost.items():
            _line(console, f"note      {count} {kind} are not in it: the form has no way to say it")
        return
    for row in written:
        missing = f", {row.missing} missing images left out" if row.missing else ""
        text = f"{row.annotations}: {row.images} images, {row.boxes} boxes{missing}"
        _line(console, f"written   {text}")
    if written:
        names = [row.split for row in written]
        command = f"teacher-infer plan --data {out} --split {names[0]} --store boxes ..."
        _line(console, f"next      {command}")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
