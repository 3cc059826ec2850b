"""Whatever holds a student, read."""

from pathlib import Path

from box_store.places.locations import RemotePath, as_typed, staged
from student_train.runs.exported import is_exported, load_exported
from student_train.runs.trained import TrainedStudent, load_student


def load_any(run: Path | RemotePath, weights: str = "best") -> TrainedStudent:
    """A student to predict with, from a run folder, its weights, or a file exported from it.

    Raises:
        RunError, CheckpointError: as `load_student`.
        ExportError: as `load_exported`.
    """
    run = as_typed(run)
    if is_exported(run):
        return load_exported(staged(run))
    return load_student(run, weights)
