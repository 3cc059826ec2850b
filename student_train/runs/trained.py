"""A trained student as a run or a file holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from box_store.categories import ClassSpace
from box_store.errors import UsageError
from box_store.places.locations import RemotePath, as_typed, staged
from student_train.config import TrainConfig, from_plain
from student_train.errors import CheckpointError, RunError
from student_train.models import Student, build_student
from student_train.runs.checkpoint import load_matching, load_weights
from student_train.runs.importing import import_checkpoint
from student_train.runs.run_folder import SavedRun, class_space_from_plain
from student_train.runs.states import SavedStates, state_weights


@dataclass(frozen=True)
class TrainedStudent:
    """A model with its weights, and what is needed to read its output."""

    model: Student
    config: TrainConfig
    class_space: ClassSpace
    origin: str
    """which weights these are, for people"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """of the evaluation that the weights were saved after; empty where there was none"""
    resizes: bool = False
    """whether the model takes photos of any size as they are, as some exported files do"""


def check_weights_name(weights: str) -> None:
    """Refuse anything but best and last."""
    if weights not in ("best", "last"):
        raise UsageError(f"--weights is best or last, got {weights!r}")


def load_student(run: Path | RemotePath, weights: str = "best") -> TrainedStudent:
    """A student on the CPU, in evaluation mode.

    Args:
        run: a run folder, a `.safetensors` file written by a run, or a file of others as
            `student-train import` reads it; a path or a URL.
        weights: which of a run folder: best (by AP on the evaluation split) or last.

    Raises:
        RunError: there is no such run, or it has no such weights yet.
        CheckpointError: the file is damaged or foreign.
    """
    run = as_typed(run)
    metrics: Mapping[str, float] = {}
    if run.is_file():
        file = staged(run)
        is_ours = file.suffix == ".safetensors"
        tensors, about = load_weights(file) if is_ours else ({}, {})
        if "config" not in about or "classes" not in about:
            return load_of_others(file, str(run))
        space = class_space_from_plain(about["classes"])
        config, origin = from_plain(about["config"], str(run)), str(run)
        metrics = about.get("metrics", {})
    else:
        folder = SavedRun(run)
        record = folder.read()
        config, space = record.config, record.class_space
        if weights == "last":
            state, note = SavedStates(folder.checkpoints).load()
            tensors = state_weights(state)
            origin = f"step {state['position']['step']} of {folder.root} {note}".strip()
        elif folder.best.exists():
            tensors, about = load_weights(staged(folder.best))
            metrics = about.get("metrics", {})
            origin = str(folder.best)
        else:
            raise RunError(
                f"{run} has no best.safetensors yet: it is written after the first evaluation; "
                "--weights last takes the last saved state"
            )
    # the trained backbone is among the tensors: its file of pretrained weights is not needed again
    model = build_student(replace(config.model, backbone_weights=None))
    report = load_matching(model, tensors)
    if report.missing or report.other_shape:
        raise CheckpointError(f"{origin} does not fit its own configuration: {report.describe()}")
    return TrainedStudent(model.eval(), config, space, origin, metrics)


def load_of_others(file: Path, shown: str) -> TrainedStudent:
    """A file or folder that says nothing of us, or a name on the hub, by the reader of `import`;
    `shown` is what it is called.

    Raises:
        CheckpointError: it cannot be read, or is nobody's that is known.
    """
    with TemporaryDirectory(prefix="student-train-") as folder:
        imported = import_checkpoint(file, Path(folder) / "run")
        found = load_student(imported.run)
    return replace(found, origin=f"{shown} ({imported.source} names)")
