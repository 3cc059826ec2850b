"""Options that mean the same in several commands of `teach-detr`."""

from pathlib import Path
from typing import Annotated

import typer

from box_store.errors import UsageError

Store = Annotated[Path, typer.Argument(help="The box store: a folder")]
Annotations = Annotated[
    Path | None, typer.Option(help="COCO annotations to compare with, or to attach as `truth`")
]
SeveralAnnotations = Annotated[
    list[Path] | None,
    typer.Option("--annotations", help="COCO annotations to attach as `truth`; one a split"),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Data set of any form, in place of --annotations; `teach-detr data` knows"),
]
Split = Annotated[str | None, typer.Option(help="Split of --data, where it has several")]
SplitShown = Annotated[
    str | None,
    typer.Option("--split", help="Split of --data; without --data, only this split of the store"),
]
SplitsShown = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        help="Split of --data; repeat it for more. Without --data, only this split of the store",
    ),
]
Teacher = Annotated[
    list[str] | None, typer.Option(help="Only this one; repeat it for more (default: all)")
]
Licences = Annotated[
    list[str] | None,
    typer.Option(help="Only teachers of this licence, such as 'Apache*'; repeat it for more"),
]
DeniedLicences = Annotated[
    list[str] | None, typer.Option(help="Leave out teachers of this licence, such as 'AGPL*'")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="Value of $NAME in the query"),
]
TopK = Annotated[int, typer.Option(min=1, help="Best boxes kept an image and teacher")]
Calibrated = Annotated[
    bool, typer.Option("--calibrated", help="Scores as `calibrate` made them; floors of these")
]
MaxImages = Annotated[
    int | None, typer.Option(min=1, help="Look at no more annotated images, drawn with the seed")
]
FileOverrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values over the file's")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would run, and how long; write nothing")
]


def truth(annotations: Path | None, data: Path | None, split: str | None) -> Path | None:
    """The place of the ground truth that was asked for, as `annotations_of` takes it.

    Raises UsageError for both ways of naming it, or a split of nothing.
    """
    if data is None:
        if split is not None:
            raise UsageError("--split names a split of --data, which is missing")
        return annotations
    if annotations is not None:
        raise UsageError("give --annotations FILE or --data SRC, not both")
    return data if split is None else Path(f"{data},split={split}")


def truth_and_split(
    annotations: Path | None, data: Path | None, split: str | None
) -> tuple[Path | None, str | None]:
    """The same where `--split` without `--data` is a split of the store: that too, None for all."""
    if data is None:
        return annotations, split
    return truth(annotations, data, split), None


def truths_and_split(
    annotations: list[Path] | None, data: Path | None, splits: list[str] | None
) -> tuple[list[Path], str | None]:
    """The same where several splits may be compared with at once: one place for each of them."""
    if data is not None and not annotations and splits:
        return [Path(f"{data},split={split}") for split in splits], None
    if len(annotations or ()) < 2 and len(splits or ()) < 2:
        one, split = annotations[0] if annotations else None, splits[0] if splits else None
        place, shown = truth_and_split(one, data, split)
        return [place] if place is not None else [], shown
    if data is not None or splits:
        raise UsageError(
            "several splits at once: --data SRC --split NAME --split NAME, or --annotations FILE "
            "--annotations FILE"
        )
    return list(annotations or ()), None


def needed_truth(annotations: Path | None, data: Path | None, split: str | None) -> Path:
    """As `truth`, where there has to be one."""
    place = truth(annotations, data, split)
    if place is None:
        raise UsageError("what should boxes be compared with? --annotations FILE or --data SRC")
    return place
