"""What the command `predict` does: images and videos in, pictures with boxes and their rows out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from box_store.boxes import Boxes
from box_store.errors import DataError, UsageError
from box_store.places.files import check_writable, local_folder
from box_store.places.locations import Location, RemotePath, as_typed, staged
from box_store.selection.rows import above_floors
from box_store.tiling.tiles import Tiling
from student_train.data import ImageError, read_image
from student_train.data.video import (
    VIDEO_SUFFIXES,
    frames_per_second,
    is_video,
    read_frames,
    require_opencv,
)
from student_train.machine.runtime import Runtime
from student_train.prediction.drawing import draw_boxes, save_picture
from student_train.prediction.overwriting import ROWS, check_targets
from student_train.prediction.video import writing
from student_train.predictor import Predictor, as_rows
from student_train.runs.loading import load_any
from student_train.runs.run_folder import beside
from student_train.runs.trained import check_weights_name

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Floors:
    """The lowest scores that are kept. by_class: in place of `lowest`, by logit index."""

    lowest: float
    by_class: Mapping[int, float]

    @classmethod
    def of(cls, predictor: Predictor, lowest: float, by_name: Mapping[str, float]) -> "Floors":
        """For a predictor's classes. Raises DataError for a name that is none of them."""
        order = sorted(predictor.categories.ids)
        categories = predictor.categories
        return cls(
            lowest, {order.index(categories.by_name(k).id): floor for k, floor in by_name.items()}
        )

    def above(self, boxes: Boxes) -> Boxes:
        """Those that are kept."""
        kept = above_floors(boxes.scores, boxes.class_ids, self.lowest, self.by_class)
        return boxes.take(kept)


@dataclass(frozen=True)
class Predictions:
    """One row an image: `file`, and either `error` or `width`, `height`, `detections`, and `best`,
    the best detection whatever its score (None where there is none).
    """

    rows: list[dict[str, Any]]
    folder: Location

    @property
    def n_read(self) -> int:
        """Images that could be read."""
        return sum("error" not in row for row in self.rows)


def predict_images(
    run: Path | RemotePath,
    images: Sequence[Path | RemotePath],
    out: Path | RemotePath | None,
    threshold: float,
    weights: str,
    device: str,
    every: int = 1,
    told: Callable[[dict[str, Any]], None] = lambda row: None,
    class_floors: Mapping[str, float] | None = None,
    tiling: Tiling | None = None,
) -> Predictions:
    """Draw what a run sees in images into a folder, with `predictions.json` beside the pictures.

    Photos are turned as their EXIF orientation says. An image that cannot be read is a row with its
    error. A video becomes a video, and each of its frames (every `every`-th) a row with its number
    as `frame`. `told` hears of each row at once. class_floors: in place of `threshold` for classes
    by name. tiling: look at tiles of the images too.

    Raises:
        TeachDetrError: the run or all images are missing, or a picture would replace a file that
            no earlier call drew.
    """
    check_weights_name(weights)
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold lies in 0..1, got {threshold}")
    if every < 1:
        raise UsageError(f"--every is at least 1, got {every}")
    files = list_images(images)
    if any(map(is_video, files)):
        require_opencv()
    folder = as_typed(out) if out else beside(run, "predictions")
    taken: set[str] = set()
    names = [_free_name(file, taken) for file in files]
    check_writable(folder)
    check_targets(folder, dict(zip(files, names, strict=True)))
    predictor = Predictor(load_any(run, weights), Runtime.start(device), tiling)
    floors = Floors.of(predictor, threshold, class_floors or {})
    rows = []
    with local_folder(folder) as here:
        for file, name in zip(files, names, strict=True):
            if is_video(file):
                found = _predict_video(predictor, file, here / name, floors, every)
            else:
                found = [_predict_one(predictor, file, here / name, floors)]
            # where the picture is going to be
            where = {"picture": str(folder / name)}
            for row in found:
                rows.append(row if "error" in row else row | where)
                told(rows[-1])
        text = json.dumps(rows, indent=2) + "\n"
        (here / ROWS).write_text(text, encoding="utf-8")
    return Predictions(rows, folder)


def _predict_one(
    predictor: Predictor, file: Location, picture: Path, floors: "Floors"
) -> dict[str, Any]:
    try:
        image = read_image(file, oriented=True).permute(1, 2, 0).numpy()
    except ImageError as error:
        return {"file": str(file), "error": str(error)}
    drawn, row = _detect(predictor, image, floors)
    save_picture(picture, drawn)
    return {"file": str(file), **row}


def _predict_video(
    predictor: Predictor, file: Location, video: Path, floors: "Floors", every: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    copy = staged(file)
    try:
        with writing(video, frames_per_second(copy) / every) as writer:
            for frame in read_frames(copy, every):
                drawn, row = _detect(predictor, frame.image, floors)
                writer.add(drawn)
                rows.append({"file": str(file), "frame": frame.index, **row})
    except DataError as error:
        rows.append({"file": str(file), "error": str(error)})
    return rows


def _detect(
    predictor: Predictor, image: np.ndarray, floors: "Floors"
) -> tuple[np.ndarray, dict[str, Any]]:
    """The picture with boxes, and its row."""
    found = predictor.predict([image])[0]
    boxes = floors.above(found)
    best = as_rows(found.top_k(1), predictor.categories)
    row = {
        "width": boxes.width,
        "height": boxes.height,
        "detections": as_rows(boxes, predictor.categories),
        "best": best[0] if best else None,
    }
    return draw_boxes(image, boxes, predictor.class_names), row


def list_images(paths: Sequence[Path | RemotePath]) -> list[Location]:
    """Files as they are, folders as the images directly inside them, by name.

    Raises:
        DataError: a path is missing, or a folder has no images.
    """
    found: list[Location] = []
    for path in map(as_typed, paths):
        if path.is_dir():
            known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known)
            if not inside:
                raise DataError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {path}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"no image at {path}")
    return found


def _free_name(file: Location, taken: set[str]) -> str:
    """A JPEG or MP4 name that no other input of this call has."""
    end = ".mp4" if is_video(file) else ".jpg"
    name, number = f"{file.stem}{end}", 2
    while name in taken:
        name, number = f"{file.stem}-{number}{end}", number + 1
    taken.add(name)
    return name
