"""Teachers behind one protocol: what an adapter supplies, how it is loaded and run.

An adapter is one module with an `AdapterInfo` (see `adapters.info`), whose `load` gives a
`Detector`: it turns images into raw detections with its framework's own preprocessing. What is the
same for all of them (input checks, batches, score floor, NMS, clipping, order, top-k, hashes of
files) happens once, here.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from box_store.boxes import Boxes, nms_keep
from box_store.errors import TeachDetrError, UsageError, nearest
from teacher_infer.adapters.info import COMMON_OPTIONS, AdapterInfo
from teacher_infer.adapters.loading import existing_file
from teacher_infer.adapters.protocol import (
    NO_NMS,
    AdapterError,
    AdapterSpec,
    Detections,
    Detector,
    Misread,
    Teacher,
)
from teacher_infer.adapters.registry import adapter_info
from teacher_infer.teachers.views import ViewingTeacher

# how far a score may lie outside 0..1 by rounding alone: sigmoids in half precision
_ROUNDING = 0.01


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
        if value not in (None, NO_NMS) and not 0 <= value <= 1:
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
    detector = info.load(spec)
    teacher = LoadedTeacher(detector, spec)
    if not spec.views:
        return teacher
    return ViewingTeacher(teacher, spec.views, spec.score_floor, spec.top_k)


def weights_files(spec: AdapterSpec) -> list[Path]:
    """The files that decide what the teacher predicts: weights, configs, lists of class names.

    For provenance; the framework isn't loaded. Empty for random weights, and for weights that the
    framework has yet to download. AdapterError where a named file isn't there.
    """
    info = check_spec(spec)
    files = info.weights_files(spec)
    for key in info.file_options:
        option, value = info.options[key], spec.option(key)
        if value and value not in option.words:
            files.append(existing_file(value, option.file))
    return list(dict.fromkeys(files))


class LoadedTeacher:
    """A `Detector` with everything around it that is the same for all: this is what runs."""

    def __init__(self, detector: Detector, spec: AdapterSpec) -> None:
        self._detector = detector
        self._spec = spec
        self.class_names = detector.class_names
        self.licence = spec.option("licence") or detector.licence
        self.versions = detector.versions
        asked = detector.nms_iou if spec.nms_iou is None else spec.nms_iou
        self._nms_iou = None if isinstance(asked, str) else asked
        # which NMS runs, in words: the detector's own where nothing else was asked for
        ours: dict[str, str] = (
            {} if asked is None else {"nms": asked if isinstance(asked, str) else f"{asked:g}"}
        )
        self.runtime = detector.runtime | ours

    def predict(self, images: list[np.ndarray]) -> list[Boxes]:
        """See `Teacher.predict`; images go through the framework `spec.batch_size` at a time."""
        for index, image in enumerate(images):
            _check_image(image, index)
        found: list[Boxes] = []
        for start in range(0, len(images), self._spec.batch_size):
            batch = images[start : start + self._spec.batch_size]
            for image, raw in zip(batch, self._detect(batch), strict=True):
                height, width = image.shape[:2]
                self._check(raw, max(width, height))
                found.append(
                    finish(
                        raw,
                        width,
                        height,
                        score_floor=self._spec.score_floor,
                        nms_iou=self._nms_iou,
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

    def _check(self, raw: Detections, side: int) -> None:
        """Refuse what can't be boxes of this image, whose longer side is `side` pixels, or can't be
        read as the adapter reads it.
        """
        scores = np.asarray(raw.scores, np.float32).reshape(-1)
        boxes = np.asarray(raw.boxes_xyxy, np.float32).reshape(-1, 4)
        # not `>=`: what is no number counts too
        counted = ~(scores < self._spec.score_floor)
        if not (np.isfinite(scores).all() and np.isfinite(boxes[counted]).all()):
            wrong = "scores" if not np.isfinite(scores).all() else "boxes"
            raise AdapterError(
                f"{self._spec.model} answers with {wrong} that are not finite numbers (NaN or "
                "infinite): weights that overflow in half precision, or that are damaged?"
            )
        away = np.any(boxes[:, :2] > 2 * side, axis=1) | np.any(boxes[:, 2:] < -side, axis=1)
        if counted.any() and away[counted].all():
            raise AdapterError(
                f"{self._spec.model}: all boxes lie far outside an image of {side} pixels, the "
                f"first as {boxes[counted][0].tolist()}: are they in other units, or damaged?"
            )
        if len(scores):
            self._check_scores(float(scores.min()), float(scores.max()))
            self._check_classes(np.asarray(raw.class_ids).reshape(-1)[counted])

    def _check_scores(self, lowest: float, highest: float) -> None:
        if lowest >= -_ROUNDING and highest <= 1 + _ROUNDING:
            return
        kind = "percent" if lowest >= 0 and 20 < highest <= 100 else "logits, before the sigmoid"
        raise Misread(
            f"{self._spec.model} answers with scores from {lowest:.4g} to {highest:.4g}, expected "
            f"0 to 1: these look like {kind}. Export the model with scores from 0 to 1"
        )

    def _check_classes(self, class_ids: np.ndarray) -> None:
        if not len(class_ids):
            return
        lowest, highest = int(class_ids.min()), int(class_ids.max())
        n = len(self.class_names)
        if lowest >= 0 and highest < n:
            return
        advice = "give the right list with classes=FILE"
        if lowest >= 1 and highest == n:
            has_key = "first_label" in adapter_info(self._spec.adapter).options
            say = "say first_label=1" if has_key else "put a name for 0 at its head"
            advice += f"; or its labels seem to count from 1: {say}"
        raise Misread(
            f"{self._spec.model} predicts class indices {lowest} to {highest}, but has "
            f"{n} class names: {advice}"
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

    In this order: drop what is below the floor; sort by score; class-wise NMS
    where `nms_iou` is a number; clip to the image and drop what has no area left; best `top_k`.
    """
    boxes = np.asarray(raw.boxes_xyxy, np.float32).reshape(-1, 4)
    # a rounding error above one
    scores = np.minimum(np.asarray(raw.scores, np.float32).reshape(-1), 1)
    class_ids = np.asarray(raw.class_ids, np.int32).reshape(-1)
    keep = scores >= np.float32(score_floor)
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
