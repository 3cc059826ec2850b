"""Folders that other programs read: trainers, label tools, and FiftyOne's COCO layout."""

import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from box_store import image_path
from box_store.errors import DataError
from box_store.forms.at_once import ALL
from box_store.outgoing import yolo
from box_store.outgoing.placing import empty_folder
from box_store.outgoing.sheet import Account, Part, Sheet, guesses_of
from box_store.outgoing.table import WRITERS, FolderForm
from teach_detr.export.chosen import Chosen, one_set
from teach_detr.export.coco import write_annotations


def write_marks(
    chosen: Chosen, form: FolderForm, out: Path, images: Path | None, *, with_scores: bool = False
) -> Account:
    """A folder of the form, in which every image is one that nobody has labelled yet.

    YOLO has no guesses: there they are labels made by one teacher. Given the image folder, images
    are linked beside, and those that are not there are left out and counted. with_scores: lines of
    YOLO end with the score.

    Raises: UsageError: the folder is not empty. DataError: an image name leads out of the folder,
    two images would share one file of labels, or no image is there.
    """
    names = {item.id: item.name for item in chosen.categories.items}
    about = f"boxes of {', '.join(chosen.sets)}, not made by people"
    if form == "yolo":
        one_set(chosen, "yolo")
    empty_folder(out)
    part = Part(ALL, images, _sheets(chosen, names, images, guessed=form != "yolo"))
    classes = chosen.categories.names
    if form == "yolo":
        account = yolo.write([part], classes, out, about, with_scores=with_scores)
    else:
        account = WRITERS[form]([part], classes, out, about)
    if account.missing and not account.images:
        name = chosen.images[0].file_name
        raise DataError(f"none of the images is in {images}, such as {name}")
    return account


def _sheets(
    chosen: Chosen, names: dict[int, str], images: Path | None, *, guessed: bool
) -> Iterator[Sheet]:
    for image, rows in groupby(chosen.rows(), key=lambda row: row[0]):
        if images is not None:
            image_path(images, image.file_name)
        marks = tuple(
            mark for _, teacher, boxes in rows for mark in guesses_of(boxes, teacher, names)
        )
        yield Sheet(image.id, image.file_name, image.width, image.height, marks, guessed)


def write_fiftyone(chosen: Chosen, out: Path, images: Path) -> int:
    """A folder that FiftyOne imports as `COCODetectionDataset`: labels.json and the images.

    Images are links in `data`; where the system makes none, `data.json` lists where they lie, which
    the same importer reads. Every label has its score as confidence and its teacher as an
    attribute. Returns the number of boxes.

    Raises: UsageError: the folder is not empty. DataError: an image name leads out of its folder.
    """
    empty_folder(out)
    listed = {image.file_name: str(image_path(images, image.file_name)) for image in chosen.images}
    try:
        for file_name in listed:
            _link(out / "data", images, file_name)
    except OSError:
        shutil.rmtree(out / "data", ignore_errors=True)
        (out / "data.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")
    return write_annotations(chosen, out / "labels.json", with_teacher=True)


def _link(folder: Path, images: Path, file_name: str) -> None:
    target, link = image_path(images, file_name), image_path(folder, file_name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
