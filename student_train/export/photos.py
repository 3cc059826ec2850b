"""Photos of a data set for exported files, and the AP of a file in a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from student_train.data.splits import Validation, find_split, make_validation, open_split
from student_train.evaluation.evaluate import evaluate_model
from student_train.export.runtimes import Served
from student_train.machine.runtime import Runtime
from student_train.models import Student
from student_train.runs.exported import Feeds, FileStudent
from student_train.runs.trained import TrainedStudent

_BATCH = 4


def open_validation(
    student: TrainedStudent, data: Path, split: str, limit: int | None
) -> Validation:
    """A split for a student, or for a student's file; a file that resizes gets photos as they are.

    Raises:
        DataError: it is not there, or has other categories.
    """
    where = replace(student.config.data, root=data, val_split=split, val_limit=limit)
    where = replace(where, val_images=None, val_annotations=None, workers=0)
    config = replace(student.config, data=where)
    source = find_split(where, split, None, None)
    return make_validation(
        config,
        source,
        open_split(source),
        student.class_space,
        Runtime.start("cpu").world,
        _BATCH,
        student.resizes,
    )


def photos(file: TrainedStudent, validation: Validation, n_batches: int) -> list[Feeds]:
    """The first batches of a split, as the file takes them."""
    model = _file(file)
    batches = (
        each.to("cpu", file.config.model.pixels)
        for each in islice(iter(validation.loader), n_batches)
    )
    return [fed for each in batches for fed in model.feeds(each.images, each.mask)]


def scorer(file: TrainedStudent, validation: Validation) -> Callable[[Served], float]:
    """What takes the file in a runtime to its AP on a split, in 0..1."""

    def score(served: Served) -> float:
        return average_precision(_file(file).run_by(served.run), validation)  # type: ignore[arg-type]

    return score


def average_precision(model: Student, validation: Validation) -> float:
    """AP of a student on the CPU, in 0..1."""
    done = evaluate_model(model.eval(), validation, Runtime.start("cpu"))
    return float(done.metrics.to_json()["AP"])


def _file(file: TrainedStudent) -> FileStudent:
    assert isinstance(file.model, FileStudent)
    return file.model
