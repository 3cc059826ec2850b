"""Folders that other programs read: YOLO text files, and FiftyOne's COCO layout."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from box_store import Boxes, ClassSpace, image_path
from box_store.errors import DataError, UsageError
from box_store.places import files
from teach_detr.export.chosen import Chosen, one_set
from teach_detr.export.coco import write_annotations

# eight decimals of a share of 10,000 px are a ten-thousandth of a pixel
_DECIMALS = 8


def write_yolo(chosen: Chosen, out: Path, images: Path | None, *, with_scores: bool = False) -> int:
    """A folder with `labels/*.txt`, `data.yaml` and, given the image folder, links in `images`.

    A line of a text file is the class (its place in the category table), then centre x and y, width
    and height as shares of the image; with `with_scores` the score follows, as tools that read
    predictions expect and tools that train do not. An image without boxes has an empty file.
    Returns the number of boxes.

    Raises: UsageError: the folder is not empty. DataError: an image name leads out of the folder,
    or two images would share one text file.
    """
    name = one_set(chosen, "yolo")
    _empty_folder(out)
    space = ClassSpace("contiguous", chosen.categories)
    written: dict[Path, str] = {}
    n_boxes = 0
    for image in chosen.images:
        boxes = chosen.boxes(name, image.id)
        if boxes is None:
            continue
        path = image_path(out / "labels", str(PurePosixPath(image.file_name).with_suffix(".txt")))
        if path in written:
            raise DataError(
                f"the images {written[path]} and {image.file_name} would share the text file "
                f"{path.name}: YOLO's layout has one for each name without its ending"
            )
        written[path] = image.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_lines(boxes, space, with_scores)), encoding="utf-8")
        n_boxes += len(boxes)
    if images is not None:
        for image in chosen.images:
            _link(out / "images", images, image.file_name)
    names = "".join(f"  {at}: {_yaml(text)}\n" for at, text in enumerate(space.names))
    (out / "data.yaml").write_text(
        f"# boxes of {name}, not made by people\ntrain: images\nval: images\nnames:\n{names}",
        encoding="utf-8",
    )
    return n_boxes


def _lines(boxes: Boxes, space: ClassSpace, with_scores: bool) -> Iterator[str]:
    corners = boxes.boxes_xyxy.astype(np.float64) / ((boxes.width, boxes.height) * 2)
    rows = np.concatenate(
        [
            (corners[:, :2] + corners[:, 2:]) / 2,
            corners[:, 2:] - corners[:, :2],
            boxes.scores[:, None],
        ],
        axis=1,
    )
    kept = rows if with_scores else rows[:, :4]
    for index, values in zip(space.to_index(boxes.class_ids).tolist(), kept.tolist(), strict=True):
        yield " ".join([str(index), *(f"{value:.{_DECIMALS}f}" for value in values)]) + "\n"


def write_fiftyone(chosen: Chosen, out: Path, images: Path) -> int:
    """A folder that FiftyOne imports as `COCODetectionDataset`: labels.json and the images.

    Images are links in `data`; where the system makes none, `data.json` lists where they lie, which
    the same importer reads. Every label has its score as confidence and its teacher as an
    attribute. Returns the number of boxes.

    Raises: UsageError: the folder is not empty. DataError: an image name leads out of its folder.
    """
    _empty_folder(out)
    listed = {image.file_name: str(image_path(images, image.file_name)) for image in chosen.images}
    try:
        for file_name in listed:
            _link(out / "data", images, file_name)
    except OSError:
        shutil.rmtree(out / "data", ignore_errors=True)
        (out / "data.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")
    return write_annotations(chosen, out / "labels.json", with_teacher=True)


def _empty_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already and is no empty folder: choose another --out")
    files.make_folder(out)


def _link(folder: Path, images: Path, file_name: str) -> None:
    target, link = image_path(images, file_name), image_path(folder, file_name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _yaml(text: str) -> str:
    # JSON's text is YAML's, but for characters beyond 16 bits, which YAML escapes otherwise
    return json.dumps(text, ensure_ascii=max(map(ord, text)) < 2**16)
