"""A review: the queue, its page, and the same images as tasks of a label tool."""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from box_store import BoxStore, CocoData
from box_store.errors import StoreError
from box_store.forms.opening import DataSet, open_data
from box_store.outgoing.placing import empty_folder
from box_store.outgoing.sheet import Mark, Part, Sheet, sheets_of
from box_store.outgoing.table import WRITERS, FolderForm
from box_store.places import files
from box_store.places.locations import Location
from teach_detr.review.page import render
from teach_detr.review.queue import Queue, find_doubts

QUEUE, PAGE = "queue.json", "review.html"


@dataclass(frozen=True)
class Written:
    """What was written: the queue, and the folder of tasks where one was asked for."""

    queue: Queue
    folder: Path
    tasks: Path | None


def write_review(
    store: Location,
    source: Path | None,
    out: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    teachers: tuple[str, ...] | None = None,
    form: FolderForm | None = None,
    limit: int = 200,
    least: float = 0.3,
    pictures: int = 60,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Written:
    """Write `out/review.html`, `out/queue.json`, and with `form` the folder `out/FORM`.

    source: the data set whose labels are looked at; without it all boxes are guesses. images: the
    folder of the images, by default the data set's.

    Raises UsageError: `out` is not empty, tasks without images, a data set of several splits.
    DataError, StoreError, UnknownTeacher.
    """
    opened = BoxStore.open(store)
    truth, folder = _truth(source, split)
    folder = images or folder
    out = Path(out).absolute()
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as name:
        queue = find_doubts(
            opened, truth, Path(name), teachers=teachers, least=least, limit=limit,
            progress=progress,
        )  # fmt: skip
    about: dict[str, Any] = {
        "store": str(store),
        "fingerprints": {name: opened.record(name).fingerprint for name in queue.teachers},
        "data": None if source is None else str(source),
        "split": None if truth is None else truth.split,
        "labels_sha256": None if truth is None else truth.sha256,
    }
    try:
        empty_folder(out)
        with files.replacing(out / QUEUE) as file:
            file.write(json.dumps(about | queue.to_json(), indent=1).encode())
        with files.replacing(out / PAGE) as file:
            file.write(render(queue, store.name, folder, pictures).encode())
        tasks = None
        if form is not None:
            tasks = out / form
            part = Part((truth and truth.split) or "all", folder, list(_sheets(queue, truth)))
            empty_folder(tasks)
            told = f"review of {store.name} by {', '.join(queue.teachers)}"
            WRITERS[form]([part], opened.categories.names, tasks, told)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
    return Written(queue, out, tasks)


def _truth(source: Path | None, split: str | None) -> tuple[CocoData | None, Location | None]:
    if source is None:
        return None, None
    found: DataSet = open_data(source)
    chosen = found.split(split) if split is not None else found.only
    return chosen.coco, chosen.images


def _sheets(queue: Queue, truth: CocoData | None) -> Iterator[Sheet]:
    """The images of the queue: labels as they are, and what teachers say in addition."""
    for page in queue.pages:
        image = page.image
        guesses = tuple(
            Mark(d.category, d.corners, d.score, ", ".join(d.teachers))
            for d in page.doubts
            if d.score is not None
        )
        at = None if truth is None else truth.table.index_of(image.id)
        if truth is None or at is None:
            yield Sheet(image.id, image.file_name, image.width, image.height, guesses, True)
            continue
        (sheet,) = sheets_of(truth, [at])
        yield Sheet(
            sheet.image_id, sheet.file_name, sheet.width, sheet.height,
            (*sheet.marks, *guesses), not page.labelled,
        )  # fmt: skip
