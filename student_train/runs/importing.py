"""From a checkpoint of the official code, of detrex or of mmdet to a run folder."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from box_store.categories import ClassSpace
from box_store.coco.categories80 import COCO_CATEGORIES
from box_store.forms.opening import annotations_of
from box_store.places.locations import local_only
from student_train.config import TrainConfig, as_plain, from_plain, resolve
from student_train.errors import CheckpointError, ConfigError, RunError
from student_train.models import FAMILIES, Student, build_student, family_of
from student_train.models.class_rows import ClassRows, padded
from student_train.models.hub.classes import class_space_of
from student_train.models.hub.fetching import fetch
from student_train.models.hub.folder import is_hub_folder, read_hub_folder
from student_train.models.hub.layout import family_of_config, from_disk
from student_train.models.official import LoadReport, detect_family, load_official
from student_train.models.official.foreign import Translation, translate
from student_train.models.official.names import has_marks, settings_beside, settings_from_shapes
from student_train.models.weights_file import OURS, WeightsFile, read_weights_file
from student_train.presets import all_presets, load_preset
from student_train.runs.checkpoint import save_weights
from student_train.runs.class_names import (
    logit_names,
    spaces_of_names,
    written_names,
)
from student_train.runs.provenance import digest
from student_train.runs.run_folder import RunFolder, class_space_from_plain, class_space_to_plain
from student_train.settings.origin import ARGUMENT, Kind, Origin
from student_train.settings.overrides import Layer, Resolved, settings

# what leaves no trace in any shape, and changes what a student computes
_SILENT = (
    "output_stride",
    "strides",
    "temperature",
    "n_queries",
    "n_heads",
    "n_points",
    "n_windows",
    "stages",
    # DEIM's files look like D-FINE's
    "activation",
)
# the parameters that change with the number of classes
_CLASSES = re.compile(r"class_embed|label_enc|score_head")


@dataclass(frozen=True)
class Imported:
    """What became of a file."""

    run: Path
    family: str
    source: str
    """who wrote the file: official, detrex, mmdet, or teach-detr (an export of ours)"""
    config: TrainConfig
    class_space: ClassSpace
    report: LoadReport
    origin: Mapping[str, str] = field(default_factory=dict)
    """official name -> name in the file, where they differ"""
    added: tuple[str, ...] = ()
    """official names of what the file lacks and does not need"""
    assumed: tuple[str, ...] = ()
    """settings that the file does not tell, each as `key=value`, as the preset has them"""
    warnings: tuple[str, ...] = ()
    """sentences about what no file of the family tells, and nobody said"""
    classes: str = ""
    """what became of the rows of single classes, for people; empty where all kept their meaning"""

    def in_file(self, name: str) -> str:
        """The file's own word for an official name."""
        return self.origin.get(name, name)

    def to_json(self) -> dict[str, Any]:
        """Everything, every key of the file and of the student included."""
        return {
            "run": str(self.run),
            "family": self.family,
            "source": self.source,
            "preset": self.config.preset,
            "classes": self.config.model.n_classes,
            "class_space": self.class_space.kind,
            "complete": self.report.complete,
            "used": {key: self.in_file(name) for key, name in self.report.used.items()},
            "missing": self.report.missing,
            "unused": [self.in_file(name) for name in self.report.unexpected],
            "other_shape": self.report.misshapen,
            "differing": self.report.differing,
            "ignored": self.report.ignored,
            "filled_in": list(self.added),
            "assumed": list(self.assumed),
            "warnings": list(self.warnings),
            "class_rows": self.classes,
        }


def import_checkpoint(
    path: Path,
    out: Path,
    *,
    family: str | None = None,
    preset: str | None = None,
    annotations: Path | None = None,
    partial: bool = False,
    overwrite: bool = False,
    overrides: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
) -> Imported:
    """Read a checkpoint and write a run folder that `eval`, `predict` and `train --init` take.

    `family` and `preset` are found out where they are not given; `annotations` is a COCO file whose
    categories the student is to have. A file that does not fit is refused unless `partial`; where
    its classes are others, rows of single classes go by name and the rest of them begins anew.

    Raises:
        CheckpointError: the file cannot be read, is nobody's that is known, or does not fit.
        ConfigError: settings that cannot be used.
        RunError: `out` holds a run already.
    """
    folder = RunFolder(local_only(out, "an imported run"))
    if folder.is_used() and not overwrite:
        raise RunError(
            f"{out} holds a run already: --overwrite replaces it, or choose another --out"
        )
    fetched = fetch(path)
    opened = _open(fetched.path, family, preset, overrides or {})
    in_file = opened.resolved.config.model.n_classes
    if opened.space is not None and annotations is None:
        resolved, space = _with_space(opened.resolved, opened.space), opened.space
    else:
        resolved, space = _with_categories(
            opened.resolved, annotations, opened.ours, opened.class_names
        )
    config = resolved.config
    torch.manual_seed(config.seed)
    model = build_student(config.model)
    translation = opened.translated(model)
    rows = _class_rows(opened, config, space, in_file)
    changed = not rows.same
    report = load_official(model, translation.state, not (partial or changed), rows)
    _refuse_nothing(report, path)
    if changed and not partial:
        _refuse_more_than_classes(report, path)
    if overwrite:
        folder.clear()
    fingerprints = {"checkpoint": digest(opened.files), **fetched.record}
    folder.write(resolved, space, command, fingerprints)
    about = {
        "config": as_plain(config),
        "classes": class_space_to_plain(space),
        "step": 0,
        "metrics": {},
    }
    save_weights(folder.best, model.state_dict(), about)
    return Imported(
        out,
        config.model.family,
        "teach-detr" if opened.ours is not None else translation.source,
        config,
        space,
        report,
        translation.origin,
        translation.added,
        opened.assumed,
        warnings=() if opened.ours is not None else _unsaid(config, preset, overrides or {}),
        classes=rows.describe() if changed else "",
    )


def _class_rows(
    opened: "_Opened", config: TrainConfig, space: ClassSpace, in_file: int
) -> ClassRows:
    """How the file's classes become those of the student. Where it does not say which they are, as
    many as the student has are the student's: they were given as what it was trained on.
    """
    names = padded(space.names, config.model.n_classes)
    if opened.space is not None:
        return ClassRows(padded(opened.space.names, in_file), names)
    says = opened.ours is not None or opened.class_names is not None
    if says or config.model.n_classes != in_file:
        return ClassRows(logit_names(opened.ours, opened.class_names, in_file), names)
    return ClassRows(names, names)


@dataclass(frozen=True)
class _Opened:
    """A file or folder: the configuration that fits it, and how to get at its tensors."""

    resolved: Resolved[TrainConfig]
    translated: Callable[[Student], Translation]
    files: tuple[Path, ...]
    assumed: tuple[str, ...] = ()
    ours: Mapping[str, Any] | None = None
    """what our own exports say of themselves"""
    space: ClassSpace | None = None
    """what its logits mean, if it says"""
    class_names: Any = None
    """of categories, as RF-DETR's files list them"""


def _open(
    path: Path, family: str | None, preset: str | None, overrides: Mapping[str, str]
) -> _Opened:
    if is_hub_folder(path):
        return _open_folder(path, family, preset, overrides)
    file = read_weights_file(path)
    translation = translate(file.weights)
    plan = _plan(path, file, translation, family, preset, overrides)
    return _Opened(
        plan.resolved,
        lambda _: translation,
        (path,),
        plan.assumed,
        file.beside.get(OURS),
        class_names=written_names(file),
    )


def _open_folder(
    path: Path, family: str | None, preset: str | None, overrides: Mapping[str, str]
) -> _Opened:
    """A folder of transformers, whose `config.json` says what files of others leave to guesses."""
    folder = read_hub_folder(path)
    found, layout = family_of_config(folder.config)
    if family is not None and family_of(family).name != found:
        raise CheckpointError(f"{path} holds a {found}, not a {family}")
    said = layout.settings(folder.config)
    start = load_preset(preset) if preset is not None else load_preset(_nearest_preset(found, said))
    if start.model.family != found:
        raise CheckpointError(f"{path} holds a {found}, and preset {preset} is of another family")
    layers = [Layer(Origin(Kind.WRITTEN, path.name), _keyed(said)), Layer(ARGUMENT, overrides)]
    return _Opened(
        resolve(start, arguments=layers),
        lambda student: from_disk(layout, folder.weights, student),
        folder.files,
        space=class_space_of(folder.config),
    )


@dataclass(frozen=True)
class _Plan:
    """The configuration that fits a file, and where each of its values comes from."""

    resolved: Resolved[TrainConfig]
    assumed: tuple[str, ...] = ()


def _plan(
    path: Path,
    file: WeightsFile,
    translation: Translation,
    family: str | None,
    preset: str | None,
    overrides: Mapping[str, str],
) -> "_Plan":
    typed = Layer(ARGUMENT, overrides)
    ours = file.beside.get(OURS)
    if isinstance(ours, Mapping) and preset is None:
        return _Plan(resolve(from_plain(ours["config"], str(path)), arguments=[typed]))
    wanted = family_of(family).config.family if family is not None else None
    if wanted is None and preset is not None:
        wanted = load_preset(preset).model.family
    family = _family(path, file, translation, wanted)
    shapes = settings_from_shapes(family, translation.state)
    beside = settings_beside(family, file.settings, translation.state)
    layers = [
        Layer(Origin(Kind.SHAPES, path.name), _keyed(shapes)),
        Layer(Origin(Kind.WRITTEN, translation.source), _keyed(translation.settings)),
        Layer(Origin(Kind.WRITTEN, path.name), _keyed(beside)),
    ]
    if preset is not None:
        # it says everything but the classes
        classes = {"n_classes": shapes["n_classes"]} if "n_classes" in shapes else {}
        classes_layer = Layer(Origin(Kind.SHAPES, path.name), _keyed(classes))
        return _Plan(resolve(load_preset(preset), arguments=[classes_layer, typed]))
    nearest = _nearest_preset(family, {**shapes, **translation.settings, **beside})
    resolved = resolve(load_preset(nearest), arguments=[*layers, typed])
    return _Plan(resolved, _assumed(resolved))


def _family(path: Path, file: WeightsFile, translation: Translation, wanted: str | None) -> str:
    """The family that a file holds; `wanted` decides between those that share their names."""
    found = detect_family(translation.state, file.settings)
    if wanted is None or wanted == found:
        return found
    if not has_marks(FAMILIES[wanted], translation.state):
        raise CheckpointError(f"{path} holds a {found}, not a {wanted}")
    return wanted


def _keyed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in fields.items()}


def _nearest_preset(family: str, known: Mapping[str, Any]) -> str:
    """The preset of the family that agrees with most of the known settings; the first of equals."""
    scores = {}
    for name in all_presets():
        model = load_preset(name).model
        if model.family == family:
            scores[name] = sum(getattr(model, key, None) == value for key, value in known.items())
    return max(scores, key=lambda name: scores[name])


def _with_space(resolved: Resolved[TrainConfig], space: ClassSpace) -> Resolved[TrainConfig]:
    layer = Layer(Origin(Kind.CATEGORIES), {"data.class_space": space.kind})
    origins = resolved.origins | dict.fromkeys(layer.values, layer.origin)
    return Resolved(resolve(resolved.config, arguments=[layer]).config, origins)


def _with_categories(
    resolved: Resolved[TrainConfig],
    annotations: Path | None,
    ours: Mapping[str, Any] | None,
    names: object = None,
) -> tuple[Resolved[TrainConfig], ClassSpace]:
    """The configuration with as many classes as the categories need, and what its logits mean.

    `names` are those of the classes that the file was trained on, if it says them.
    """
    config = resolved.config
    if ours is not None and annotations is None:
        return resolved, class_space_from_plain(ours["classes"])
    n_classes = config.model.n_classes
    categories = COCO_CATEGORIES if annotations is None else annotations_of(annotations).categories
    spaces = [ClassSpace(kind, categories) for kind in ("raw", "contiguous")]
    named = spaces_of_names(names) if annotations is None else []
    space = next((each for each in (*named, *spaces) if each.n_classes == n_classes), None)
    if space is None and annotations is None:
        known = " or ".join(str(each.n_classes) for each in spaces)
        whose = " (Objects365's)" if n_classes in (365, 366) else ""
        raise ConfigError(
            [
                f"the checkpoint has {n_classes} classes{whose}, and COCO's categories need "
                f"{known}: give --annotations FILE, a COCO file with the categories it was "
                "trained on (or those it is to learn)"
            ]
        )
    space = space or ClassSpace(config.data.class_space, categories)
    layer = Layer(
        Origin(Kind.CATEGORIES),
        {"model.n_classes": space.n_classes, "data.class_space": space.kind},
    )
    origins = resolved.origins | dict.fromkeys(layer.values, layer.origin)
    return Resolved(resolve(config, arguments=[layer]).config, origins), space


def _assumed(resolved: Resolved[TrainConfig]) -> tuple[str, ...]:
    known = settings(resolved.config)
    told = (Kind.SHAPES, Kind.WRITTEN, Kind.ARGUMENT)
    return tuple(
        f"{key}={known[key].value}"
        for key in (f"model.{name}" for name in _SILENT)
        if key in known and (key not in resolved.origins or resolved.origins[key].kind not in told)
    )


def _unsaid(
    config: TrainConfig, preset: str | None, overrides: Mapping[str, str]
) -> tuple[str, ...]:
    """What the family warns of, unless a preset or an argument says it."""
    if preset is not None:
        return ()
    sentences = FAMILIES[config.model.family].unsaid
    return tuple(text for key, text in sentences.items() if f"model.{key}" not in overrides)


def _refuse_nothing(report: LoadReport, path: Path) -> None:
    if not report.used:
        raise CheckpointError(f"nothing in {path} fits the student: {report}")


def _refuse_more_than_classes(report: LoadReport, path: Path) -> None:
    other = [
        name
        for name in (*report.missing, *report.misshapen, *report.unexpected, *report.differing)
        if not _CLASSES.search(name)
    ]
    if other:
        raise CheckpointError(
            f"{path} does not fit, apart from its classes: {', '.join(other[:5])}; --partial takes "
            "what fits"
        )
