"""Whatever holds a student, read."""

from pathlib import Path

from box_store.places.locations import RemotePath, as_typed, staged
from student_train.errors import ExportError
from student_train.models.hub.fetching import is_hub_name
from student_train.models.hub.folder import has_hub_weights
from student_train.runs.exported import is_exported, load_exported
from student_train.runs.trained import TrainedStudent, load_of_others, load_student


def load_any(run: Path | RemotePath | str, weights: str = "best") -> TrainedStudent:
    """A student to predict with, from a run folder, its weights, a file exported from it, or as
    `load_trained`.

    Raises:
        RunError, CheckpointError: as `load_student`.
        ExportError: as `load_exported`.
    """
    if is_exported(run) and not is_hub_name(run):
        return load_exported(staged(as_typed(_path(run))))
    return load_trained(run, weights)


def load_trained(run: Path | RemotePath | str, weights: str = "best") -> TrainedStudent:
    """A student as a network: from a run folder, its weights, a folder of transformers, or
    `hub:ORG/NAME[@REVISION]`.

    Raises:
        RunError, CheckpointError: as `load_student`; or the hub does not give it.
        ExportError: an exported file, which has no network that could be written otherwise.
    """
    if is_hub_name(run):
        return load_of_others(Path(str(run)), str(run))
    if is_exported(run):
        raise ExportError(
            f"{run} is an exported file, which has no network any more: expected the run that it "
            "was made from"
        )
    place = as_typed(_path(run))
    if isinstance(place, Path) and has_hub_weights(place):
        return load_of_others(place, str(place))
    return load_student(place, weights)


def _path(run: Path | RemotePath | str) -> Path | RemotePath:
    return Path(run) if isinstance(run, str) else run
