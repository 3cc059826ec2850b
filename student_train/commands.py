"""What the commands `eval`, `predict` and `presets` do, apart from printing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from box_store.errors import DataError, UsageError
from box_store.files import local_folder
from box_store.locations import Location, RemotePath, as_typed, staged
from student_train.coco_metrics import read_annotations
from student_train.config import TrainConfig, problems_of, resolve
from student_train.confusion import Confusion, confusion_matrix
from student_train.data import ImageError, read_image
from student_train.drawing import draw_boxes, save_picture
from student_train.evaluate import Evaluation, evaluate_model, write_json
from student_train.inputs import find_split, make_validation, open_split
from student_train.overrides import Layer, as_text, merge, settings, to_plain
from student_train.plots import plot_confusion, plot_precision_recall, require_plots
from student_train.predictor import Predictor, as_rows, load_student
from student_train.presets import PRESETS, Preset, count_parameters, load_preset
from student_train.runtime import Runtime
from student_train.video import (
    VIDEO_SUFFIXES,
    frames_per_second,
    is_video,
    read_frames,
    require_opencv,
    writing,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation, where it was written, and which weights and split it is of."""

    evaluation: Evaluation
    path: Location
    weights: str
    split: str
    confusion: Confusion
    pictures: tuple[Location, ...]


def evaluate_run(
    run: Path | RemotePath,
    data: Path | None,
    split: str | None,
    weights: str,
    device: str,
    out: Path | RemotePath | None,
    overrides: Mapping[str, str],
    *,
    confusion_score: float = 0.3,
    plot: bool = False,
) -> EvaluatedRun:
    """Evaluate the weights of a run on a split; by default on the one it was trained with, and on
    all of it: `data.val_limit` counts only if it is among the overrides.

    With torchrun's processes the images are shared out, and the first process writes.

    Args:
        confusion_score: detections below it do not count as confusions.
        plot: draw the curves and the confusion matrix beside their JSON.

    Raises:
        TeachDetrError: the run, the weights or the data are missing or do not fit each other.
    """
    check_weights_name(weights)
    if plot:
        require_plots()
    student = load_student(run, weights)
    # a limit kept the evaluations short while it was training
    whole = replace(student.config, data=replace(student.config.data, val_limit=None))
    config = merge(whole, [Layer("argument", overrides)], problems_of).config
    where = config.data
    if data is not None or split is not None:
        # the run's explicit paths belong to the split that it was trained with
        where = replace(where, val_images=None, val_annotations=None)
    if data is not None:
        where = replace(where, root=data)
    if split is not None:
        where = replace(where, val_split=split)
    config = replace(config, data=where)
    source = find_split(where, where.val_split, where.val_images, where.val_annotations)
    runtime = Runtime.start(device, config.amp, config.threads)
    validation = make_validation(
        config,
        source,
        open_split(source),
        student.class_space,
        runtime.world,
        config.eval_batch_size or min(config.batch_size, 8),
    )
    folder = as_typed(out) if out else _beside(run, "results")
    try:
        evaluation = evaluate_model(student.model.to(runtime.device), validation, runtime)
        confusion = confusion_matrix(
            read_annotations(source.annotations),
            evaluation.results,
            set(validation.dataset.image_ids.tolist()),
            score=confusion_score,
        )
        names: tuple[str, ...] = ()
        if runtime.world.is_first:
            with local_folder(folder) as here:
                evaluation.write(here, source.name)
                write_json(here / f"{source.name}.confusion.json", confusion.to_json())
                if plot:
                    names = _draw(evaluation, confusion, here, source.name)
    finally:
        runtime.world.close()
    path, pictures = folder / f"{source.name}.json", tuple(folder / name for name in names)
    return EvaluatedRun(evaluation, path, student.origin, source.name, confusion, pictures)


def _beside(run: Path | RemotePath, name: str) -> Location:
    """A folder inside a run folder, or beside a weights file."""
    place = as_typed(run)
    return (place if place.is_dir() else place.parent) / name


def _draw(evaluation: Evaluation, confusion: Confusion, folder: Path, name: str) -> tuple[str, ...]:
    """Names of the pictures of an evaluation."""
    curves, matrix = f"{name}.curves.png", f"{name}.confusion.png"
    plot_precision_recall(evaluation.metrics.curves.to_json(), folder / curves)
    plot_confusion(confusion.names, confusion.counts, folder / matrix)
    return curves, matrix


def check_weights_name(weights: str) -> None:
    """Refuse anything but best and last."""
    if weights not in ("best", "last"):
        raise UsageError(f"--weights is best or last, got {weights!r}")


@dataclass(frozen=True)
class Predictions:
    """One row an image: `file`, and either `error` or `width`, `height`, `detections`."""

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
) -> Predictions:
    """Draw what a run sees in images into a folder, with `predictions.json` beside the pictures.

    An image that cannot be read is a row with its error. A video becomes a video, and each of its
    frames (every `every`-th) a row with its number as `frame`.

    Raises:
        TeachDetrError: the run or all images are missing.
    """
    check_weights_name(weights)
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold lies in 0..1, got {threshold}")
    if every < 1:
        raise UsageError(f"--every is at least 1, got {every}")
    files = list_images(images)
    if any(map(is_video, files)):
        require_opencv()
    predictor = Predictor(load_student(run, weights), Runtime.start(device))
    folder = as_typed(out) if out else _beside(run, "predictions")
    rows = []
    taken: set[str] = set()
    with local_folder(folder) as here:
        for file in files:
            name = _free_name(file, taken)
            if is_video(file):
                found = _predict_video(predictor, file, here / name, threshold, every)
            else:
                found = [_predict_one(predictor, file, here / name, threshold)]
            # where the picture is going to be
            where = {"picture": str(folder / name)}
            rows += [row if "error" in row else row | where for row in found]
        text = json.dumps(rows, indent=2) + "\n"
        (here / "predictions.json").write_text(text, encoding="utf-8")
    return Predictions(rows, folder)


def _predict_one(
    predictor: Predictor, file: Location, picture: Path, threshold: float
) -> dict[str, Any]:
    try:
        image = read_image(file).permute(1, 2, 0).numpy()
    except ImageError as error:
        return {"file": str(file), "error": str(error)}
    drawn, row = _detect(predictor, image, threshold)
    save_picture(picture, drawn)
    return {"file": str(file), **row}


def _predict_video(
    predictor: Predictor, file: Location, video: Path, threshold: float, every: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    copy = staged(file)
    try:
        with writing(video, frames_per_second(copy) / every) as writer:
            for frame in read_frames(copy, every):
                drawn, row = _detect(predictor, frame.image, threshold)
                writer.add(drawn)
                rows.append({"file": str(file), "frame": frame.index, **row})
    except DataError as error:
        rows.append({"file": str(file), "error": str(error)})
    return rows


def _detect(
    predictor: Predictor, image: np.ndarray, threshold: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """The picture with boxes, and its row."""
    boxes = predictor.predict([image])[0].above(threshold)
    row = {
        "width": boxes.width,
        "height": boxes.height,
        "detections": as_rows(boxes, predictor.categories),
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


@dataclass(frozen=True)
class PresetRow:
    """A preset with its size."""

    preset: Preset
    config: TrainConfig
    n_parameters: int

    def to_json(self) -> dict[str, Any]:
        """Name, backbone, epochs, queries, parameters, published AP (percent) and its source."""
        published = self.preset.published
        return {
            "name": self.preset.name,
            "backbone": self.config.model.backbone,
            "epochs": self.config.epochs,
            "queries": self.config.model.n_queries,
            "parameters": self.n_parameters,
            "use": self.preset.use,
            "published_AP": published and published.ap,
            "published_AP_with_teachers": published and published.ap_with_teachers,
            "published_source": published and published.source,
        }


def preset_rows() -> list[PresetRow]:
    """All presets."""
    rows = []
    for name, preset in PRESETS.items():
        config = load_preset(name)
        rows.append(PresetRow(preset, config, count_parameters(config)))
    return rows


def preset_settings(name: str) -> dict[str, Any]:
    """Every setting of a preset: value, text, origin, help.

    Raises:
        ConfigError: unknown preset.
    """
    resolved = resolve(load_preset(name))
    rows = {
        key: {
            "value": to_plain(setting.value),
            "text": as_text(setting.value),
            "origin": resolved.origins.get(key, "default"),
            "help": setting.help,
        }
        for key, setting in settings(resolved.config).items()
    }
    return {"preset": name, "settings": rows}
