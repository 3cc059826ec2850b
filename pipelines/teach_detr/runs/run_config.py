"""The file of `teach-detr run`: both stages on one page.

out = "runs/yolox"                       # everything that the run makes
baseline = true                          # also train without teachers, to compare

[data]                                   # COCO, YOLO, Pascal VOC, ...: see `teach-detr data`
root = "coco"

[teachers.yolox]                         # as in `teacher-infer run --teachers FILE`
adapter = "onnx"
model = "yolox_nano.onnx"
format = "yolox"

[student]                                # as in `student-train train`
preset = "dino-r50-4scale"
[student.settings]                       # any of its settings
"teachers.score_floor" = 0.1
optim = { lr = 2e-4 }

[cluster]                                # where it runs; without it, here
address = "auto"                         # a running Ray cluster
launcher = "ray"                         # process, torchrun or ray
processes = 8                            # of the trainer
gpus = 1                                 # of each of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from box_store.forms.opening import open_data, parse_place
from box_store.places.locations import location
from student_train.config import TrainConfig, resolve
from student_train.errors import ConfigError
from student_train.presets import load_preset
from student_train.settings.origin import ARGUMENT, Kind, Origin
from student_train.settings.overrides import Layer, Resolved, flatten, merge, read_toml
from teacher_infer.teachers.parsing import as_argument, read_tables

BASELINE, TAUGHT = "baseline", "taught"

T = TypeVar("T")


@dataclass(frozen=True)
class RunData:
    """A data set of any form that `teach-detr data` knows, or what the four paths say."""

    root: Path = Path()
    """Data set: COCO, YOLO, Pascal VOC, ...; options behind commas, as everywhere."""
    train_images: Path | None = None
    """Folder of training images, where they lie apart."""
    train_annotations: Path | None = None
    """COCO JSON of the training images, where it lies apart."""
    val_images: Path | None = None
    """Folder of evaluation images, where they lie apart."""
    val_annotations: Path | None = None
    """COCO JSON of the evaluation images, where it lies apart."""
    train_split: str = "train2017"
    """Split that teachers label and the student trains on."""
    val_split: str = "val2017"
    """Split that the student is evaluated on."""
    label_val: bool = True
    """Let teachers label the evaluation split too, to know how good they are."""

    def images_of(self, split: str) -> Path:
        """Folder of a split's images. Raises DataError."""
        given = self._given(split, "images")
        if given is not None or self._as_coco(split):
            return given or self.root / split
        found = open_data(self.root).split(split).images
        return found if isinstance(found, Path) else self.root / split

    def annotations_of(self, split: str) -> Path:
        """Annotations of a split, as `box_store.forms.opening.annotations_of` takes them."""
        given = self._given(split, "annotations")
        if given is not None or self._as_coco(split):
            return given or self._layout(split)
        return Path(f"{self.root},split={split}")

    def _layout(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}.json"

    def _as_coco(self, split: str) -> bool:
        """Whether a split lies as COCO's do, or, for lack of anything else, should."""
        return not (
            self.is_laid_out(split)
            and parse_place(self.root)[0].exists()
            and not location(self._layout(split)).exists()
        )

    def is_laid_out(self, split: str) -> bool:
        """Whether a split is one of the data set at `root`."""
        return not (self._given(split, "images") or self._given(split, "annotations"))

    @property
    def needs_root(self) -> bool:
        """Whether one of its splits has to be looked for below `root`."""
        pairs = [(self.train_images, self.train_annotations)]
        if self.val_split not in ("none", self.train_split):
            pairs.append((self.val_images, self.val_annotations))
        return any(path is None for pair in pairs for path in pair)

    def _given(self, split: str, kind: str) -> Path | None:
        return getattr(self, f"{'train' if split == self.train_split else 'val'}_{kind}")

    def settings(self) -> dict[str, Any]:
        """What the trainer has to know of it, by dotted key; absolute, it may start elsewhere."""
        paths = {
            "root": None if self.root == Path() else self.root,
            "train_images": self.train_images,
            "train_annotations": self.train_annotations,
            "val_images": self.val_images,
            "val_annotations": self.val_annotations,
        }
        splits = {"train_split": self.train_split, "val_split": self.val_split}
        absolute = {key: path.absolute() for key, path in paths.items() if path is not None}
        return {f"data.{key}": value for key, value in {**splits, **absolute}.items()}


@dataclass(frozen=True)
class RunStore:
    """The box store."""

    path: Path | None = None
    """Folder of the store; by default OUT/store. Give it to share one store among runs."""
    unit_size: int | None = None
    """Images committed together, for new teachers."""


@dataclass(frozen=True)
class RunStudent:
    """What is trained."""

    preset: str = ""
    """As `student-train presets` lists them."""
    teachers: str = "all"
    """Teachers by name, separated by commas, or all."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of `student-train train`, by dotted key or as nested tables."""


@dataclass(frozen=True)
class RunCluster:
    """Where both stages run."""

    address: str | None = None
    """A running Ray cluster, HOST:PORT or auto; without one Ray starts here where it is needed."""
    local_teachers: bool = False
    """Run teachers one after another in one process, without Ray."""
    launcher: Literal["process", "torchrun", "ray"] = "process"
    """How the trainer starts: one process here, torchrun on this machine, or Ray Train."""
    processes: int = 1
    """Processes of the trainer (torchrun and ray)."""
    cpus: float = 1
    """CPUs that Ray reserves for each of them."""
    gpus: float = 0
    """GPUs that Ray reserves for each of them."""
    max_failures: int = 3
    """Times that Ray starts a failed trainer again, from its last state; -1 always."""


@dataclass(frozen=True)
class LabellingConfig:
    """What stage one needs to know: data, store, teachers, and where they run."""

    out: Path = Path()
    """Folder of everything that is made."""
    data: RunData = field(default_factory=RunData)
    store: RunStore = field(default_factory=RunStore)
    teachers: dict[str, Any] = field(default_factory=dict)
    """A table for each teacher."""
    cluster: RunCluster = field(default_factory=RunCluster)

    @property
    def store_path(self) -> Path:
        """Folder of the store."""
        return self.store.path or self.out / "store"

    @property
    def label_splits(self) -> list[str]:
        """Splits that teachers label."""
        splits = [self.data.train_split]
        has_other = self.data.val_split not in ("none", self.data.train_split)
        return splits + [self.data.val_split] * (self.data.label_val and has_other)

    def annotations(self, split: str) -> Path:
        """COCO annotations of a split."""
        return self.data.annotations_of(split)


@dataclass(frozen=True)
class RunConfig(LabellingConfig):
    """A whole run: teachers, store, student, comparison."""

    baseline: bool = False
    """Also train the same student without teachers."""
    student: RunStudent = field(default_factory=RunStudent)

    @property
    def arms(self) -> dict[str, str]:
        """Runs to train, by name: which teachers each learns from."""
        taught = {TAUGHT: self.student.teachers}
        return {BASELINE: "none"} | taught if self.baseline else taught


def read_run(path: Path, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """The configuration in a TOML file, with values by dotted key on top.

    Raises:
        ConfigError: the file or a value cannot be used; all problems at once.
    """
    return read_file(RunConfig(), path, overrides, _problems)


def read_file(
    start: T,
    path: Path,
    overrides: Mapping[str, str] | None,
    check: Callable[[T], list[str]],
    options: Sequence[Layer] = (),
) -> T:
    """A configuration: `start`, the tables of a TOML file over it, options of the command line, and
    values by dotted key on top.

    Raises:
        ConfigError: as `merge`, with what `check` finds.
    """
    layers = [Layer(Origin(Kind.FILE, str(path)), flatten(start, read_toml(path))), *options]
    layers.append(Layer(ARGUMENT, dict(overrides or {})))
    return merge(start, layers, check).config


def _problems(config: RunConfig) -> list[str]:
    found = labelling_problems(config)
    found += student_problems(
        config.student.preset, table("student.settings", config.student.settings)
    )
    if config.cluster.processes < 1:
        found.append(f"cluster.processes must be at least 1, got {config.cluster.processes}")
    if config.cluster.launcher == "process" and config.cluster.processes > 1:
        found.append(
            f"cluster.processes={config.cluster.processes} needs cluster.launcher torchrun or ray"
        )
    return found


def labelling_problems(config: LabellingConfig) -> list[str]:
    """What is missing of folder, data and teachers, a sentence each."""
    found = []
    if config.out == Path():
        found.append('out is missing: the folder of the run, out = "runs/NAME"')
    if config.data.needs_root and config.data.root == Path():
        found.append('data.root is missing: the folder of the data set, [data] root = "coco"')
    if not config.teachers and not config.store.path:
        found.append("no teachers: give a table [teachers.NAME] for each, or a filled store.path")
    return found


def nested(tables: Mapping[str, Any]) -> dict[str, Any]:
    """With `dab.preset`, given as an argument, as an entry of the table `dab`."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        name, dot, entry = key.partition(".")
        known = found.get(name, {})
        found[name] = {**known, entry: value} if dot and isinstance(known, Mapping) else value
    return found


def student_settings(preset: str, *tables: Layer) -> Resolved[TrainConfig]:
    """What the trainer makes of a preset and tables of settings (by dotted key, nested, or both),
    each over those before it.

    Raises:
        ConfigError: an unknown preset or setting, or values that do not fit; all problems at once.
    """
    start = load_preset(preset)
    return resolve(start, arguments=[Layer(t.origin, flatten(start, t.values)) for t in tables])


def table(name: str, values: Mapping[str, Any]) -> Layer:
    """A table of a file as a layer of settings."""
    return Layer(Origin(Kind.TABLE, name), values)


def student_problems(preset: str, *tables: Layer) -> list[str]:
    """What the trainer would refuse of a preset and settings: said before teachers take hours."""
    if not preset:
        return [
            "student.preset is missing; `student-train presets` lists what there is, "
            '[student] preset = "dino-r50-4scale"'
        ]
    try:
        student_settings(preset, *tables)
    except ConfigError as error:
        return list(error.problems)
    return []


def teacher_arguments(config: LabellingConfig, folder: Path) -> list[str]:
    """Every teacher as `teacher-infer run --teacher` takes it; files may lie in `folder`, beside
    the configuration.

    Raises:
        UsageError: a table is not understood.
    """
    return [as_argument(spec) for spec in read_tables(nested(config.teachers), folder)]
