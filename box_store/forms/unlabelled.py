"""Images that nobody labelled, in a data set whose form does not say which these are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.forms.protocol import Split
from box_store.places.locations import Location
from box_store.places.text import lines_of

EMPTY = "empty"

Which = Callable[[Location, CocoData], NDArray[np.bool_]]


def mark_unlabelled(
    place: Location, splits: Sequence[Split], asked: str
) -> tuple[tuple[Split, ...], list[str]]:
    """The splits of a data set with those images marked, and remarks.

    asked: `empty`, for all without objects, or a text file with a name a line: the path of an image
    or its end.

    Raises DataError: no such file, or none of its names is an image of the data set.
    """
    if asked == EMPTY:
        return _marked(splits, lambda _, coco: np.diff(coco.table.offsets) == 0), []
    path = Path(asked)
    beside = Path(str(place)) / asked
    path = beside if not path.exists() and beside.is_file() else path
    listed = {line.strip().replace("\\", "/") for line in lines_of(path)} - {""}
    seen: set[str] = set()

    def which(images: Location, coco: CocoData) -> NDArray[np.bool_]:
        names = [f"{images}/{coco.table.file_name(at)}" for at in range(len(coco.table))]
        found = [_ends(name) & listed for name in names]
        seen.update(*found)
        return np.array([bool(each) for each in found], bool)

    made = _marked(splits, which)
    for split in made:
        _ = split.coco
    lost = sorted(listed - seen)
    if lost and not seen:
        raise DataError(
            f"{path} lists {len(lost)} images, none of which is in {place}, such as {lost[0]}"
        )
    notes = [f"{path}: {len(lost)} names are of no image, such as {lost[0]}"] if lost else []
    return made, notes


def _ends(path: str) -> set[str]:
    """A path, and what is left of it without its first folders."""
    parts = path.replace("\\", "/").split("/")
    return {"/".join(parts[at:]) for at in range(len(parts))}


def _marked(splits: Sequence[Split], which: Which) -> tuple[Split, ...]:
    return tuple(_split(split, which) for split in splits)


def _split(split: Split, which: Which) -> Split:
    def load() -> tuple[Location, CocoData]:
        images, coco = split.load()
        table = coco.table
        flags = table.unlabelled | which(images, coco)
        return images, replace(coco, table=replace(table, unlabelled=flags, path=None))

    return replace(split, load=load)
