"""Boxes of a store for other programs: trainers, label tools, FiftyOne, spreadsheets."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from box_store.errors import DataError, StoreError, UsageError
from box_store.outgoing.table import FolderForm
from box_store.places import files
from teach_detr.export.chosen import ExportSpec, open_chosen, spec_of
from teach_detr.export.coco import write_annotations, write_results
from teach_detr.export.folders import write_fiftyone, write_marks
from teach_detr.export.table import write_csv

__all__ = ["ExportSpec", "Form", "export_boxes", "spec_of"]

Form = Literal["coco-results", "coco", "csv", "fiftyone"] | FolderForm


def export_boxes(
    store: Path,
    form: Form,
    out: Path,
    spec: ExportSpec,
    *,
    images: Path | None = None,
    with_scores: bool = False,
    listed: Path | None = None,
    split: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[int, int]:
    """Write the boxes that `spec` chooses; returns the numbers of images and of boxes.

    coco-results, coco and csv are files, written as a whole or not at all; the others are folders,
    which must be new or empty. images: the image folder, which fiftyone needs and the other folders
    link where it is given. with_scores: yolo lines end with the score.
    listed: annotations, of a file or of a data set in any form; boxes of images that they lack are
    left out. split: only this split of the store. say: hears what people should know.

    Raises: UsageError: several teachers for a format of one, a wrong condition, a folder that is
    not empty. DataError: no such folder of images, an image name that leads out of it. StoreError:
    the disk refuses. And what `box_store.select` raises.
    """
    if images is not None and not images.is_dir():
        raise DataError(f"no folder of images at {images}")
    # a link must not depend on where the command was given
    images = None if images is None else images.absolute()
    target = Path(out).absolute()
    with open_chosen(store, spec, listed, split) as chosen:
        try:
            files.make_folder(target.parent)
            if form == "coco-results":
                n_boxes = write_results(chosen, target)
            elif form == "coco":
                n_boxes = write_annotations(chosen, target)
            elif form == "csv":
                n_boxes = write_csv(chosen, target)
            elif form != "fiftyone":
                account = write_marks(chosen, form, target, images, with_scores=with_scores)
                if account.missing:
                    say(f"{account.missing} images are not in {images} and are left out")
                return account.images, account.marks
            elif images is not None:
                n_boxes = write_fiftyone(chosen, target, images)
            else:
                raise UsageError("the format fiftyone needs the image folder: --images FOLDER")
        except OSError as error:
            raise StoreError(f"cannot write {out}: {error.strerror or error}") from error
        return len(chosen.images), n_boxes
