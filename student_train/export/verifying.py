"""What the command `verify` does, apart from printing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from box_store.patience import Say
from student_train.data.splits import Validation, find_split, make_validation, open_split
from student_train.errors import ExportError
from student_train.evaluation.evaluate import evaluate_model
from student_train.export.layers import first_difference
from student_train.export.program import Detector, Example
from student_train.export.runtimes import ONNX, REFERENCE, RUNTIMES, Served
from student_train.export.verify import Feeds, Row, any_feeds, feeds, verify
from student_train.machine.runtime import Runtime
from student_train.models import Student
from student_train.runs.exported import CARD, OUTPUTS, FileStudent, load_exported, open_session
from student_train.runs.loading import load_any
from student_train.runs.trained import TrainedStudent

# batches of photos that outputs are compared on; AP is of all
_BATCHES = 2


@dataclass(frozen=True)
class Verified:
    """What `verify_file` found."""

    rows: list[Row]
    reference: str
    remarks: list[str]


def verify_file(
    path: Path,
    *,
    run: Path | None,
    data: Path | None,
    split: str,
    limit: int | None,
    size: tuple[int, int] | None,
    threads: int,
    tolerance: float,
    layers: bool,
    weights: str,
    say: Say,
) -> Verified:
    """Run a file everywhere: see the command for the arguments.

    Raises:
        ExportError: it is missing, nothing reads it, or it does not go with the data or the run.
    """
    if not path.is_file():
        raise ExportError(f"no file at {path}")
    original = None if run is None else load_any(run, weights)
    student = original if original is not None else _of_file(path)
    score: Callable[[Served], float] | None = None
    if student is None:
        if data is not None:
            raise ExportError(
                f"{path} does not say how photos go in, so --data cannot be used: it is compared "
                "on noise, leave --data out"
            )
        side = 640 if size is None else size[0]
        batches: list[Feeds] = [any_feeds(open_session(path), side)]
    elif data is not None:
        validation = open_validation(student, data, split, limit)
        batches = photos(student, validation, _BATCHES)
        score = scorer(student, path, validation)
    else:
        batches = [feeds(each) for each in _made_up(student, path, size)]
    expected = None if original is None else [_outputs(original, batch) for batch in batches]
    rows = verify(path, batches, expected=expected, threads=threads, score=score, say=say)
    remarks = []
    if layers and path.suffix.lower() == ONNX:
        for row in rows:
            if row.ran and not row.within(tolerance):
                remarks.append(_layer(path, row.runtime, batches[0]))
    return Verified(rows, str(run) if run is not None else REFERENCE.name, remarks)


def _of_file(path: Path) -> TrainedStudent | None:
    """The student that a file says it is; None for another tool's."""
    if path.suffix.lower() != ONNX:
        return None
    about = open_session(path).get_modelmeta().custom_metadata_map
    return load_exported(path) if CARD in about else None


def _made_up(student: TrainedStudent, path: Path, size: tuple[int, int] | None) -> list[Example]:
    """Noise of the evaluation's size and, where the file is free, of others."""
    multiple = student.config.model.side_multiple
    shape: list[object] = [2, 3, "height", "width"]
    if path.suffix.lower() == ONNX:
        shape = list(open_session(path).get_inputs()[0].shape)
    own = size or student.config.augment.eval_size
    height, width = (
        fixed if isinstance(fixed, int) else -(-side // multiple) * multiple
        for fixed, side in zip(shape[2:], own, strict=True)
    )
    batch = shape[0] if isinstance(shape[0], int) else 2
    made = [Example.make(batch, height, width)]
    if not isinstance(shape[0], int):
        made.append(Example.make(1, height, width, seed=1))
    if not isinstance(shape[2], int) and not isinstance(shape[3], int):
        step = 37 if multiple == 1 else multiple
        made.append(Example.make(batch, height + step, width + step, seed=2))
    return made


@torch.inference_mode()
def _outputs(student: TrainedStudent, batch: Feeds) -> dict[str, np.ndarray]:
    detector = Detector(student.model, student.config.model.top_k)
    found = detector(*(torch.from_numpy(each) for each in batch.values()))
    return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}


def open_validation(
    student: TrainedStudent, data: Path, split: str, limit: int | None
) -> Validation:
    where = replace(student.config.data, root=data, val_split=split, val_limit=limit)
    where = replace(where, val_images=None, val_annotations=None)
    config = replace(student.config, data=where)
    source = find_split(where, split, None, None)
    world = Runtime.start("cpu").world
    return make_validation(config, source, open_split(source), student.class_space, world, 4)


def photos(student: TrainedStudent, validation: Validation, n_batches: int) -> list[Feeds]:
    """The first batches of a split, as files take them."""
    return [
        feeds(Example(each.to("cpu", student.config.model.pixels).images, each.mask))
        for each in islice(iter(validation.loader), n_batches)
    ]


def scorer(
    student: TrainedStudent, path: Path, validation: Validation
) -> Callable[[Served], float]:
    """What takes a file in a runtime to its AP on a split, in 0..1."""
    shape = (None, 3, None, None)
    if path.suffix.lower() == ONNX:
        shape = open_session(path).get_inputs()[0].shape

    def score(served: Served) -> float:
        model: Student = FileStudent(served.run, shape, student.config.model, path)  # type: ignore[assignment]
        done = evaluate_model(model.eval(), validation, Runtime.start("cpu"))
        return float(done.metrics.to_json()["AP"])

    return score


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
