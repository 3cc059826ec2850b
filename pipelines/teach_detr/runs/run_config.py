"""The file of `teach-detr run`: both stages on one page.

out = "runs/yolox"                       # everything that the run makes
baseline = true                          # also train without teachers, to compare

[data]                                   # COCO's layout
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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from student_train.config import TrainConfig, resolve
from student_train.errors import ConfigError
from student_train.presets import load_preset
from student_train.settings.overrides import (
    Layer,
    as_text,
    flatten,
    merge,
    parse_assignments,
    read_toml,
)
from teacher_infer.teachers.spec import as_argument, read_tables

BASELINE, TAUGHT = "baseline", "taught"

T = TypeVar("T")


@dataclass(frozen=True)
class RunData:
    """Images and annotations, in COCO's layout."""

    root: Path = Path()
    """Folder that holds SPLIT/ and annotations/instances_SPLIT.json."""
    train_split: str = "train2017"
    """Split that teachers label and the student trains on."""
    val_split: str = "val2017"
    """Split that the student is evaluated on."""
    label_val: bool = True
    """Let teachers label the evaluation split too, to know how good they are."""


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
        return self.data.root / "annotations" / f"instances_{split}.json"


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
    start: T, path: Path, overrides: Mapping[str, str] | None, check: Callable[[T], list[str]]
) -> T:
    """A configuration: `start`, the tables of a TOML file over it, and values by dotted key on top.

    Raises:
        ConfigError: as `merge`, with what `check` finds.
    """
    layers = [Layer(f"file {path}", flatten(start, read_toml(path)))]
    layers.append(Layer("argument", dict(overrides or {})))
    return merge(start, layers, check).config


def _problems(config: RunConfig) -> list[str]:
    found = labelling_problems(config)
    found += student_problems(config.student.preset, config.student.settings)
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
    if config.data.root == Path():
        found.append('data.root is missing: the folder of the data set, [data] root = "coco"')
    if not config.teachers and not config.store.path:
        found.append("no teachers: give a table [teachers.NAME] for each, or a filled store.path")
    return found


def student_config(preset: str, *settings: Mapping[str, Any]) -> TrainConfig:
    """What the trainer makes of a preset and tables of settings, each over those before it.

    Raises:
        ConfigError: an unknown preset or setting, or values that do not fit; all problems at once.
    """
    words = [word for table in settings for word in setting_arguments(table)]
    return resolve(load_preset(preset), arguments=[Layer("file", parse_assignments(words))]).config


def student_problems(preset: str, *settings: Mapping[str, Any]) -> list[str]:
    """What the trainer would refuse of a preset and settings: said before teachers take hours."""
    if not preset:
        return [
            "student.preset is missing; `student-train presets` lists what there is, "
            '[student] preset = "dino-r50-4scale"'
        ]
    try:
        student_config(preset, *settings)
    except ConfigError as error:
        return list(error.problems)
    return []


def teacher_arguments(config: LabellingConfig, folder: Path) -> list[str]:
    """Every teacher as `teacher-infer run --teacher` takes it; files may lie in `folder`, beside
    the configuration.

    Raises:
        UsageError: a table is not understood.
    """
    return [as_argument(spec) for spec in read_tables(config.teachers, folder)]


def setting_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings by dotted key or as nested tables, as `key=value`."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    walk("", settings)
    return [f"{key}={as_text(value)}" for key, value in flat.items()]
