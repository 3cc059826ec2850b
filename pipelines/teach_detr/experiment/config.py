"""The file of `teach-detr experiment`: arms, the conditions to compare them under, and seeds.

out = "experiments/labels"
seeds = [0, 1, 2]
reference = "none"                       # the arm that the others are compared with

[data]                                   # COCO's layout
root = "crowd"
images = 2000                            # optional: a seeded sample of the training images

[teachers.rtmdet]                        # as in `teach-detr run`; or a filled [store] path
adapter = "mmdet"
model = "rtmdet.py"

[student]                                # what is the same in every run
preset = "dino-demo"
[student.settings]
steps = 240

[conditions.complete]                    # optional: what is done to the labels, or to the student
[conditions.missing]
missing = 0.4

[arms.none]
teachers = "none"
[arms.parallel]
teachers = "rtmdet,yolo"
[arms.fused]
teachers = "rtmdet,yolo"
settings = { teachers = { combine = "fused" } }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from box_store.errors import nearest
from student_train.errors import ConfigError
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import Layer, flatten, merge
from teach_detr.runs.run_config import (
    LabellingConfig,
    RunData,
    RunStudent,
    labelling_problems,
    nested,
    read_file,
    student_problems,
    table,
)

T = TypeVar("T")
AS_GIVEN = "as-given"


@dataclass(frozen=True)
class ExperimentData(RunData):
    """Images and annotations, in COCO's layout."""

    images: int | None = None
    """Train on this many images, drawn at random once for the whole experiment."""
    sample_seed: int = 0
    """Which images are drawn, and which labels conditions spoil."""


@dataclass(frozen=True)
class Condition:
    """What is done to the training labels, and to the student, in every arm."""

    missing: float = 0.0
    """Share of objects that lose their annotation."""
    swapped: float = 0.0
    """Share of the remaining objects that get the class of another, drawn at random."""
    jitter: float = 0.0
    """Standard deviation of the shift of each side of a box, in parts of the box's width or height
    (cut at half of it).
    """
    preset: str | None = None
    """Preset in place of `student.preset`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings over those of the student."""


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    teachers: str = "all"
    """Teachers by name, separated by commas; all, or none."""
    merge: str = "none"
    """Teachers whose boxes are written into the annotations, as if they were true."""
    merge_floor: float = 0.3
    """Score from which such boxes are taken."""
    merge_iou: float = 1.0
    """Boxes are left out that overlap a label of their class by more; 1 takes all of them."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings over those of the student and of the condition."""
    only: tuple[str, ...] = ()
    """Conditions to train it under; by default all. An arm that uses no labels needs one."""


@dataclass(frozen=True)
class Wrong:
    """A teacher made worse: some of another's boxes, drawn at random, lie elsewhere."""

    of: str = ""
    """The teacher whose boxes are taken."""
    share: float = 0.5
    """Share of its boxes that are moved."""
    shift: tuple[float, float] = (0.5, 1.0)
    """How far, in parts of the box's width and height: at least, at most."""


@dataclass(frozen=True)
class ExperimentConfig(LabellingConfig):
    """Every run of an experiment is one condition, one arm and one seed."""

    data: ExperimentData = field(default_factory=ExperimentData)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds: weights that are not loaded, order of images, augmentation, denoising."""
    reference: str = "none"
    """Arm that the others are compared with."""
    race: bool = False
    """Stop training arms that three seeds or more have shown to be better or worse at 99 %."""
    student: RunStudent = field(default_factory=RunStudent)
    conditions: dict[str, Any] = field(default_factory=dict)
    """A table for each condition; without any, the labels are as given."""
    arms: dict[str, Any] = field(default_factory=dict)
    """A table for each arm."""
    wrong: dict[str, Any] = field(default_factory=dict)
    """A table for each teacher that is made by moving another's boxes."""
    calibrate: tuple[str, ...] = ()
    """Teachers whose scores are calibrated on the training labels as given, before any training;
    arms use that with `teachers.calibrated = true`.
    """
    devices: tuple[str, ...] = ("auto",)
    """Where runs go, one at a time on each: auto, cpu, or cuda:0,cuda:1. Ignored on a cluster."""
    resamples: int = 500
    """Resamples of seeds and images that intervals are computed from."""
    pictures: int = 6
    """Scenes in the grid of those where arms differ most."""


@dataclass(frozen=True)
class Plan:
    """A configuration with its tables read: nothing of it is text any more."""

    config: ExperimentConfig
    conditions: dict[str, Condition]
    arms: dict[str, Arm]
    wrong: dict[str, Wrong]

    def student(self, condition: str, arm: str) -> tuple[str, list[Layer]]:
        """The preset trained there, and tables of settings, each over those before it."""
        base, spoiled = self.config.student, self.conditions[condition]
        tables = [
            table("student.settings", base.settings),
            table(f"conditions.{condition}.settings", spoiled.settings),
            table(f"arms.{arm}.settings", self.arms[arm].settings),
        ]
        return spoiled.preset or base.preset, tables


def read_experiment(
    path: Path, overrides: Mapping[str, str] | None = None, options: Sequence[Layer] = ()
) -> Plan:
    """The experiment in a TOML file, with options and values by dotted key on top.

    Raises:
        ConfigError: the file or a value cannot be used; all problems at once. So is an option whose
            value a table of settings of the file would replace in some runs.
    """
    plan = plan_of(read_file(ExperimentConfig(), path, overrides, problems_of, options))
    if hidden := list(_hidden(plan, options)):
        raise ConfigError(hidden)
    return plan


# settings that have the last word over those of an option, by the option's key
_STRONGER = {"epochs": ("epochs", "steps"), "init": ("init",)}


def _hidden(plan: Plan, options: Sequence[Layer]) -> Iterator[str]:
    tables: dict[str, Mapping[str, Any]] = {"student.settings": plan.config.student.settings}
    tables |= {f"conditions.{n}.settings": c.settings for n, c in plan.conditions.items()}
    tables |= {f"arms.{n}.settings": arm.settings for n, arm in plan.arms.items()}
    for layer in options:
        for key in layer.values:
            asked = key.removeprefix("student.settings.")
            for where, values in tables.items():
                for name in _STRONGER.get(asked, ()):
                    if name in values and not (where == "student.settings" and name == asked):
                        yield (
                            f"{layer.origin}: {where}.{name}={values[name]} of the file has the "
                            "last word: leave one of them out"
                        )


def plan_of(config: ExperimentConfig) -> Plan:
    """Read the tables of a configuration.

    Raises:
        ConfigError: a key that a table does not know, a value that does not fit, or an arm,
            teacher or share that makes no sense; all problems at once.
    """
    problems: list[str] = []
    conditions = _tables("conditions", config.conditions, Condition(), problems)
    arms = _tables("arms", config.arms, Arm(), problems)
    wrong = _tables("wrong", config.wrong, Wrong(), problems)
    plan = Plan(config, conditions or {AS_GIVEN: Condition()}, arms, wrong)
    problems += _table_problems(plan) + _student_problems(plan)
    if problems:
        raise ConfigError(problems)
    return plan


def named_teachers(plan: Plan) -> Iterator[tuple[str, str]]:
    """Every teacher that the file names, with where it does."""
    for name, arm in plan.arms.items():
        for key in ("teachers", "merge"):
            for teacher in map(str.strip, getattr(arm, key).split(",")):
                if teacher not in ("all", "none"):
                    yield f"arms.{name}.{key}", teacher
    for name, wrong in plan.wrong.items():
        yield f"wrong.{name}.of", wrong.of
    for teacher in plan.config.calibrate:
        yield "calibrate", teacher


def _tables(kind: str, tables: Mapping[str, Any], start: T, problems: list[str]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, values in nested(tables).items():
        if not isinstance(values, Mapping):
            problems.append(f"{kind}.{name} should be a table, got {values!r}")
            continue
        if not name.replace("-", "").replace("_", "").isalnum():
            problems.append(f"{kind}.{name}: names are folders, of letters, digits, - and _ only")
        layer = Layer(Origin(Kind.TABLE, f"{kind}.{name}"), flatten(start, values))
        try:
            found[name] = merge(start, [layer]).config
        except ConfigError as error:
            problems += error.problems
    return found


def problems_of(config: ExperimentConfig) -> list[str]:
    """What makes no sense in an experiment, its tables apart; a sentence each."""
    found = labelling_problems(config)
    if config.data.val_split == "none":
        found.append("data.val_split: an experiment needs a split to evaluate on")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        found.append(f"seeds should be different numbers, at least one, got {config.seeds}")
    if config.resamples < 1:
        found.append(f"resamples must be at least 1, got {config.resamples}")
    if config.data.images is not None and config.data.images < 1:
        found.append(f"data.images must be at least 1, got {config.data.images}")
    if not config.devices:
        found.append("devices is empty: give cpu, auto or GPUs such as cuda:0,cuda:1")
    if config.cluster.launcher != "process":
        found.append(
            "cluster.launcher: every run of an experiment is one process; give [cluster] address "
            "to spread them over a cluster"
        )
    return found


def _student_problems(plan: Plan) -> list[str]:
    """What the trainer would refuse; what is wrong in every run is said once."""
    found: dict[str, None] = {}
    for condition in plan.conditions:
        for arm in plan.arms:
            preset, tables = plan.student(condition, arm)
            found |= dict.fromkeys(student_problems(preset, *tables))
    return list(found)


def _table_problems(plan: Plan) -> list[str]:
    found: list[str] = []
    if plan.config.reference not in plan.arms:
        names = list(plan.arms)
        found.append(
            f"reference {plan.config.reference!r} is none of the arms ({', '.join(names)})."
            + nearest(plan.config.reference, names)
        )
    for name, condition in plan.conditions.items():
        for key in ("missing", "swapped"):
            value = getattr(condition, key)
            if not 0 <= value <= 1:
                found.append(f"conditions.{name}.{key} is a share, 0..1, got {value}")
        if condition.jitter < 0:
            found.append(f"conditions.{name}.jitter must be at least 0, got {condition.jitter}")
    for name, arm in plan.arms.items():
        for condition in arm.only:
            if condition not in plan.conditions:
                found.append(
                    f"arms.{name}.only: {condition!r} is none of the conditions."
                    + nearest(condition, list(plan.conditions))
                )
        if arm.only and name == plan.config.reference:
            found.append(f"arms.{name}.only: the reference is needed under every condition")
        for key in ("merge_floor", "merge_iou"):
            value = getattr(arm, key)
            if not 0 <= value <= 1:
                found.append(f"arms.{name}.{key} lies in 0..1, got {value}")
    for name, wrong in plan.wrong.items():
        if not wrong.of:
            found.append(f'wrong.{name}.of is missing: the teacher to spoil, of = "NAME"')
        if not 0 <= wrong.share <= 1:
            found.append(f"wrong.{name}.share is a share, 0..1, got {wrong.share}")
        if not 0 <= wrong.shift[0] <= wrong.shift[1]:
            found.append(f"wrong.{name}.shift: expected 0 <= least <= most, got {wrong.shift}")
        if name in plan.config.teachers:
            found.append(f"wrong.{name}: there is a table teachers.{name} too")
    return found
