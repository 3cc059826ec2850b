"""What the command `verify`, and `export` after writing, do apart from printing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from box_store.errors import TeachDetrError
from box_store.patience import Say, patience
from student_train.data.splits import Validation
from student_train.errors import ExportError
from student_train.export.layers import first_difference
from student_train.export.metadata import PRECISION
from student_train.export.photo_input import made_up_photos, photo_pixels
from student_train.export.photos import average_precision, open_validation, photos, scorer
from student_train.export.program import Detector, Example
from student_train.export.runtimes import ONNX, REFERENCE, RUNTIMES, TORCH, Served
from student_train.export.verify import Row, any_feeds, feeds, verify
from student_train.runs.exported import (
    CARD,
    OUTPUTS,
    PHOTOS,
    Feeds,
    FileStudent,
    load_exported,
    open_session,
    student_of_card,
)
from student_train.runs.trained import TrainedStudent

# batches of photos that outputs are compared on; AP is of all
_BATCHES = 2
# in what OpenVINO computes by itself on CPUs that have it
_OPENVINO = (
    "openvino  computes in bfloat16 by itself where the CPU has it, and no setting in a file "
    "changes that: compile with INFERENCE_PRECISION_HINT=f32, or EXECUTION_MODE_HINT=ACCURACY"
)


@dataclass(frozen=True)
class Asked:
    """How a file is verified; see the command for what each means."""

    data: Path | None = None
    split: str | None = None
    limit: int | None = None
    size: tuple[int, int] | None = None
    threads: int = 1
    tolerance: float = 1e-3
    layers: bool = True


@dataclass(frozen=True)
class Verified:
    """What came of a file."""

    path: Path
    rows: list[Row]
    reference: str
    remarks: list[str]
    tolerance: float
    expected_ap: float | None = None
    """what AP should be, in 0..1; None where no data was given, or no student"""

    def require(self) -> None:
        """Raises TeachDetrError where a runtime computes something else, or none ran."""
        bad = [
            row.runtime for row in self.rows if not row.missing and not row.within(self.tolerance)
        ]
        if bad:
            raise TeachDetrError(
                f"{self.path} computes something else in {', '.join(bad)}: more than "
                f"{self.tolerance:g} from {self.reference}"
            )
        if not any(row.ran for row in self.rows):
            raise TeachDetrError(f"{self.path} ran nowhere")


def verify_file(
    path: Path,
    asked: Asked,
    *,
    original: TrainedStudent | None = None,
    expected_ap: float | None = None,
    say: Say,
) -> Verified:
    """Run a file in every runtime that is here.

    Args:
        original: the student that it was made from, which says what is right; none: the file
            itself does, in onnxruntime without any optimisation.
        expected_ap: what AP should be, in 0..1; none: that of `original` is measured.

    Raises:
        ExportError: it is missing, nothing reads it, or it does not go with the data or the run.
    """
    if not path.is_file():
        raise ExportError(f"no file at {path}")
    file, about = _of_file(path)
    lower = PRECISION in about
    score: Callable[[Served], float] | None = None
    if file is None:
        batches = [_of_others(path, asked, original)]
    elif asked.data is None:
        batches = _made_up(file, asked.size)
    else:
        validation = _validation(file, asked.data, asked)
        batches, score = photos(file, validation, _BATCHES), scorer(file, validation)
        if original is not None and expected_ap is None:
            if file.resizes:
                # the same photos, resized outside
                validation = _validation(original, asked.data, asked)
            with patience(say, "measuring AP of the student"):
                expected_ap = average_precision(original.model, validation)
    expected, reference = None, REFERENCE.name
    # numbers of fewer bits are compared with those of the file itself, and AP with the student's
    if original is not None and not lower:
        expected, reference = _expected(original, path, batches), original.origin
    rows = verify(
        path,
        batches,
        expected=expected,
        threads=asked.threads,
        score=score,
        expected_ap=expected_ap,
        lower=lower,
        say=say,
    )
    remarks = _remarks(path, asked, rows, batches)
    return Verified(path, rows, reference, remarks, asked.tolerance, expected_ap)


def _validation(student: TrainedStudent, data: Path, asked: Asked) -> Validation:
    split = asked.split or student.config.data.val_split
    return open_validation(student, data, split, asked.limit)


def _of_others(path: Path, asked: Asked, original: TrainedStudent | None) -> Feeds:
    """A batch for a file of another tool."""
    if asked.data is not None:
        raise ExportError(
            f"{path} does not say how photos go in, so --data cannot be used: it is compared "
            "on noise, leave --data out"
        )
    if original is not None or path.suffix.lower() != ONNX:
        raise ExportError(
            f"{path} does not say which student it is: expected a file written by "
            "student-train export, or another tool's .onnx without --run"
        )
    return any_feeds(open_session(path), 640 if asked.size is None else asked.size[0])


def _remarks(path: Path, asked: Asked, rows: Sequence[Row], batches: Sequence[Feeds]) -> list[str]:
    remarks = []
    for row in rows:
        bad = row.ran and not row.within(asked.tolerance)
        if asked.layers and bad and path.suffix.lower() == ONNX:
            remarks.append(_layer(path, row.runtime, batches[0]))
        if row.ran and row.runtime == "openvino" and not row.same(asked.tolerance):
            remarks.append(_OPENVINO)
    if any(row.ran and row.says(asked.tolerance) == "fewer bits" for row in rows):
        remarks.append("fewer bits are judged by AP: give --data DATA")
    return remarks


def _of_file(path: Path) -> tuple[TrainedStudent | None, dict[str, str]]:
    """The student that a file says it is (None for another tool's), and what else it says."""
    if path.suffix.lower() == ONNX:
        about = open_session(path).get_modelmeta().custom_metadata_map
        return (load_exported(path) if CARD in about else None), about
    if path.suffix.lower() != TORCH:
        return None, {}
    about = archive_notes(path)
    if CARD not in about:
        return None, about
    shape = json.loads(about.get("shape", "[null, 3, null, null]"))
    return student_of_card(path, about[CARD], shape, _runs_nowhere), about


def _runs_nowhere(fed: Feeds) -> Feeds:
    raise ExportError("a .pt2 file runs in a process of its own")


def archive_notes(path: Path) -> dict[str, str]:
    """What a `.pt2` file of ours says of itself; nothing in another tool's.

    Raises:
        ExportError: it is no archive of torch.export.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [each for each in archive.namelist() if each.endswith("/extra/teach_detr.json")]
            content: Any = json.loads(archive.read(names[0])) if names else {}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} is no archive of torch.export: {error}") from error
    return content if isinstance(content, dict) else {}


def _made_up(file: TrainedStudent, size: tuple[int, int] | None) -> list[Feeds]:
    """Noise of the evaluation's size and, where the file is free, of others; or made-up photos."""
    model = file.model
    assert isinstance(model, FileStudent)
    if file.resizes:
        return [
            {PHOTOS: np.repeat(photo[None], model.n_fixed or 2, 0)} for photo in made_up_photos()
        ]
    multiple = file.config.model.side_multiple
    own = size or file.config.augment.eval_size
    height, width = (
        fixed or -(-side // multiple) * multiple
        for fixed, side in zip(model.canvas, own, strict=True)
    )
    batch = model.n_fixed or 2
    made = [Example.make(batch, height, width)]
    if model.n_fixed is None:
        made.append(Example.make(1, height, width, seed=1))
    if None in model.canvas:
        step = 37 if multiple == 1 else multiple
        made.append(Example.make(batch, height + step, width + step, seed=2))
    return [feeds(each) for each in made]


def _expected(student: TrainedStudent, path: Path, batches: Sequence[Feeds]) -> list[Feeds]:
    """What a student says of batches. Of photos it sees the pixels that the file makes, which are
    compared with its own where the file is written: a grey level more in one may turn a near tie.
    """
    if any(len(batch) > 1 for batch in batches):
        return [_outputs(student, *batch.values()) for batch in batches]
    with photo_pixels(path) as pixels:
        return [_outputs(student, *pixels(batch)) for batch in batches]


@torch.inference_mode()
def _outputs(student: TrainedStudent, images: np.ndarray, mask: np.ndarray) -> Feeds:
    detector = Detector(student.model, student.config.model.top_k)
    found = detector(torch.from_numpy(images), torch.from_numpy(mask))
    return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}


def _layer(path: Path, name: str, batch: Feeds) -> str:
    runtime = next(each for each in RUNTIMES if each.name == name)
    try:
        found = first_difference(path, runtime, batch)
    except ExportError as error:
        return f"{name}: its layers cannot be looked at: {error}"
    if found is None:
        return (
            f"{name}: no single layer differs when all are looked at: an optimisation of several "
            "at once, or rounding that adds up"
        )
    return f"{name}: {found.describe()}"
