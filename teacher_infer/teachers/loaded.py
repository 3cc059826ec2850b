"""Teachers behind one protocol: what an adapter supplies, how it is loaded and run.

An adapter is one module in `teacher_infer/adapters/` with two functions: `load(spec) -> Detector`
imports the framework, `weights_files(spec)` doesn't. A `Detector` turns images into raw detections
with its framework's own preprocessing; what is the same for all of them (input checks, batches,
score floor, NMS, clipping, order, top-k) happens once, here.
"""

import hashlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from box_store.boxes import Boxes, nms_keep
from box_store.errors import TeachDetrError, UsageError, nearest
from teacher_infer.adapters.protocol import AdapterError, AdapterSpec, Detections, Detector, Teacher
from teacher_infer.adapters.registry import ADAPTERS, COMMON_OPTIONS, AdapterInfo
from teacher_infer.teachers.views import ViewingTeacher


def adapter_help() -> tuple[AdapterInfo, ...]:
    """Every adapter: what it runs, an example, the extra that installs it, licence and keys."""
    return ADAPTERS


def adapter_names() -> tuple[str, ...]:
    """The names that `AdapterSpec.adapter` may take."""
    return tuple(info.name for info in ADAPTERS)


def adapter_info(name: str) -> AdapterInfo:
    """The adapter of that name; UsageError, with the nearest name, where there is none."""
    for info in ADAPTERS:
        if info.name == name:
            return info
    known = adapter_names()
    raise UsageError(
        f"unknown adapter {name!r}: expected one of {', '.join(known)}.{nearest(name, known)}"
    )


def check_spec(spec: AdapterSpec) -> AdapterInfo:
    """The spec's adapter; UsageError for unknown names, keys and numbers that can't be meant."""
    info = adapter_info(spec.adapter)
    known = info.options | COMMON_OPTIONS
    for key in spec.options:
        if key not in known:
            raise UsageError(
                f"adapter {spec.adapter} has no key {key!r}: expected one of "
                f"{', '.join(known)}.{nearest(key, known)}"
            )
    if not spec.model:
        raise UsageError(f"adapter {spec.adapter} needs a model, as in {info.example}")
    for name in ("batch_size", "top_k", "threads"):
        value = getattr(spec, name)
        if value is not None and value < 1:
            raise UsageError(f"{name}={value}: expected at least 1")
    for name in ("score_floor", "nms_iou"):
        value = getattr(spec, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name}={value}: expected a number from 0 to 1")
    return info


def load_teacher(spec: AdapterSpec) -> Teacher:
    """Import the adapter's framework, build the model on `spec.device`, return it ready to run.

    Raises UsageError for unknown names and values, MissingLibrary with the extra to install, and
    AdapterError where weights or config can't be used.
    """
    info = check_spec(spec)
    if spec.threads is not None and info.uses_torch:
        import torch

        torch.set_num_threads(spec.threads)
    detector: Detector = import_module(info.module).load(spec)
    teacher = LoadedTeacher(detector, spec)
    if not spec.views:
        return teacher
    return ViewingTeacher(teacher, spec.views, spec.score_floor, spec.top_k)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """The files that decide what the teacher predicts: weights, and the config where it is one.

    For provenance; the framework isn't loaded. Empty for random weights, and for weights that the
    framework has yet to download. AdapterError where a named file isn't there.
    """
    return import_module(check_spec(spec).module).weights_files(spec)


class LoadedTeacher:
    """A `Detector` with everything around it that is the same for all: this is what runs."""

    def __init__(self, detector: Detector, spec: AdapterSpec) -> None:
        self._detector = detector
        self._spec = spec
        self.class_names = detector.class_names
        self.licence = spec.option("licence") or detector.licence
        self.versions = detector.versions

    def predict(self, images: list[np.ndarray]) -> list[Boxes]:
        """See `Teacher.predict`; images go through the framework `spec.batch_size` at a time."""
        for index, image in enumerate(images):
            _check_image(image, index)
        nms_iou = self._detector.nms_iou if self._spec.nms_iou is None else self._spec.nms_iou
        found: list[Boxes] = []
        for start in range(0, len(images), self._spec.batch_size):
            batch = images[start : start + self._spec.batch_size]
            for image, raw in zip(batch, self._detect(batch), strict=True):
                self._check_classes(raw)
                height, width = image.shape[:2]
                found.append(
                    finish(
                        raw,
                        width,
                        height,
                        score_floor=self._spec.score_floor,
                        nms_iou=nms_iou,
                        top_k=self._spec.top_k,
                    )
                )
        return found

    def _detect(self, batch: list[np.ndarray]) -> list[Detections]:
        try:
            return self._detector.detect(batch)
        except TeachDetrError:
            raise
        except Exception as error:  # a framework's own, which may be anything
            sizes = sorted({f"{image.shape[1]}x{image.shape[0]}" for image in batch})
            raise AdapterError(
                f"{self._spec.adapter}:{self._spec.model} failed on {len(batch)} images of "
                f"{', '.join(sizes)} pixels: {type(error).__name__}: {error}"
            ) from error

    def _check_classes(self, raw: Detections) -> None:
        if not len(raw.class_ids):
            return
        lowest, highest = int(raw.class_ids.min()), int(raw.class_ids.max())
        if lowest < 0 or highest >= len(self.class_names):
            raise AdapterError(
                f"{self._spec.model} predicts class indices {lowest} to {highest}, but has "
                f"{len(self.class_names)} class names: give the right list with classes=FILE"
            )


def finish(
    raw: Detections,
    width: int,
    height: int,
    *,
    score_floor: float,
    nms_iou: float | None,
    top_k: int,
) -> Boxes:
    """Raw detections of one image (`width` x `height` pixels) -> the boxes that are stored.

    In this order: drop what isn't finite or is below the floor; sort by score; class-wise NMS
    where `nms_iou` is a number; clip to the image and drop what has no area left; best `top_k`.
    """
    boxes = np.asarray(raw.boxes_xyxy, np.float32).reshape(-1, 4)
    # sigmoids in half precision can come out a rounding error above one
    scores = np.minimum(np.asarray(raw.scores, np.float32).reshape(-1), 1)
    class_ids = np.asarray(raw.class_ids, np.int32).reshape(-1)
    keep = np.isfinite(boxes).all(axis=1) & (scores >= np.float32(score_floor))
    found = Boxes(boxes[keep], scores[keep], class_ids[keep], width, height).sorted()
    if nms_iou is None:
        return found.clipped().top_k(top_k)
    # dense detectors leave tens of thousands of candidates at a low floor. Boxes only suppress what
    # comes after them, so the first ones are final as soon as there are enough
    n_considered = 8 * top_k
    while True:
        best = found.take(np.arange(min(n_considered, len(found))))
        survivors = best.take(_class_wise_nms(best, nms_iou)).clipped()
        if len(survivors) >= top_k or n_considered >= len(found):
            return survivors.top_k(top_k)
        n_considered *= 4


def _class_wise_nms(ordered: Boxes, iou: float) -> np.ndarray:
    # class by class: one IoU matrix over all classes would be mostly wasted
    members = [np.flatnonzero(ordered.class_ids == one) for one in np.unique(ordered.class_ids)]
    kept = [rows[nms_keep(ordered.boxes_xyxy[rows], None, iou)] for rows in members]
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def _check_image(image: np.ndarray, index: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise AdapterError(
            f"image {index}: expected a non-empty H x W x 3 array of uint8 (RGB), "
            f"got {image.dtype} of shape {image.shape}"
        )


def weights_sha256(files: Sequence[Path]) -> str:
    """Hash of what a model was read from: of the one file, or of all files' hashes and names.

    Empty for no file: random weights, or a name that only a hub knows.
    """
    hashes = [(_file_sha256(path), path.name) for path in files]
    if len(hashes) < 2:
        return hashes[0][0] if hashes else ""
    lines = "\n".join(f"{digest}  {name}" for digest, name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


_CHUNK = 1 << 20
