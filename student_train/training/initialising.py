"""Weights to start training from, whoever wrote them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from box_store.categories import ClassSpace
from box_store.places.locations import RemotePath, as_typed, staged
from student_train.errors import CheckpointError
from student_train.models import Student
from student_train.models.class_rows import ClassRows, padded
from student_train.models.config import StudentConfig
from student_train.models.hub.classes import class_space_of
from student_train.models.hub.fetching import fetch, is_hub_name
from student_train.models.hub.folder import has_hub_weights, read_hub_folder
from student_train.models.hub.layout import family_of_config, from_disk
from student_train.models.official import load_official, translate
from student_train.models.official.foreign import Translation
from student_train.models.weights_file import read_weights_file
from student_train.runs.checkpoint import InitReport, load_matching, load_weights
from student_train.runs.class_names import class_names_of, logit_names, names_in_file
from student_train.runs.provenance import digest
from student_train.runs.run_folder import SavedRun, class_space_to_plain
from student_train.runs.states import is_state, read_state, state_weights
from student_train.runs.trained import load_student

# sizes that change what weights compute and leave no trace in their shapes
_SHAPELESS = (
    "n_heads",
    "n_sampling_heads",
    "n_points",
    "temperature",
    "output_stride",
    "reg_scale",
)


def initialise(model: Student, source: Path | RemotePath, space: ClassSpace) -> InitReport:
    """Load weights to fine-tune: what fits is taken, the rest keeps its initial values. What
    belongs to single classes goes by name; `space` has those of `model`.

    `source` is a run folder, a `.safetensors` file of ours, or an official checkpoint; a path or a
    URL; or a folder of transformers, which may be named as `hub:ORG/NAME[@REVISION]`. The report
    has the hash of what was read, and the commit of a name.

    Raises:
        CheckpointError, RunError: there is no such thing, or nothing in it fits.
    """
    target = padded(space.names, model.config.n_classes)
    if is_hub_name(source) or (isinstance(source, Path) and has_hub_weights(source)):
        return _from_hub_folder(model, source, target)
    source = as_typed(source)
    if source.is_dir():
        run = SavedRun(source)
        trained = load_student(source, "best" if run.best.exists() else "last")
        names = padded(trained.class_space.names, trained.config.model.n_classes)
        report = load_matching(model, trained.model.state_dict(), ClassRows(names, target))
        # a state is told by its step, which its name says
        read = {"init": digest([staged(run.best)])} if run.best.exists() else {}
        return replace(report, record={"init_weights": trained.origin, **read})
    file = staged(source)
    return replace(_from_file(model, source, file, target), record={"init": digest([file])})


def _from_file(
    model: Student, place: Path | RemotePath, source: Path, target: tuple[str, ...]
) -> InitReport:
    if source.suffix == ".safetensors":
        tensors, about = load_weights(source)
        if "classes" in about:
            return load_matching(model, tensors, ClassRows(class_names_of(about), target))
    if source.suffix == ".pt" and is_state(source):
        state = read_state(source)
        # a state says its classes, those of older versions lie in their run's folder
        run = SavedRun(place.parent.parent)
        if "classes" not in state and run.config_file.exists():
            state["classes"] = class_space_to_plain(run.read().class_space)
        names = class_names_of(state) if "classes" in state else None
        return load_matching(model, state_weights(state), ClassRows(names, target))
    file = read_weights_file(source)
    rows = ClassRows(names_in_file(file, model.config.family), target)
    return _from_official(model, source, translate(file.weights), rows)


def _from_hub_folder(
    model: Student, source: Path | RemotePath, target: tuple[str, ...]
) -> InitReport:
    fetched = fetch(str(source))
    folder = read_hub_folder(fetched.path)
    family, layout = family_of_config(folder.config)
    if family != model.config.family:
        raise CheckpointError(
            f"{source} holds a {family}, and this student is a {model.config.family}: choose a "
            f"preset of {family}, or other weights"
        )
    settings = layout.settings(folder.config)
    n_classes = settings["n_classes"]
    said = class_space_of(folder.config)
    names = logit_names(None, None, n_classes) if said is None else padded(said.names, n_classes)
    translation = from_disk(layout, folder.weights, model)
    report = _from_official(model, source, translation, ClassRows(names, target))
    record = {"init": digest(folder.files), **{f"init_{k}": v for k, v in fetched.record.items()}}
    return replace(report, record=record, differing=_differing(settings, model.config))


def _differing(said: Mapping[str, Any], config: StudentConfig) -> tuple[str, ...]:
    """Settings that weights were trained with and this student has not, though shapes agree."""
    return tuple(
        f"{name}={said[name]}, here {getattr(config, name)}"
        for name in _SHAPELESS
        if name in said and hasattr(config, name) and said[name] != getattr(config, name)
    )


def _from_official(
    model: Student, source: Path | RemotePath, translation: Translation, rows: ClassRows
) -> InitReport:
    found = load_official(model, translation.state, strict=False, classes=rows)
    if not found.used:
        raise CheckpointError(f"nothing in {source} fits this student: {found}")
    return InitReport(
        found.loaded,
        tuple(found.missing),
        tuple(found.unexpected),
        tuple(found.misshapen),
        rows.describe(),
    )
