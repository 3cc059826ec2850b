"""Which of my teachers should I use? An answer in minutes, from short runs of a small student.

What the annotations say of each teacher comes first: one that does not fit them is out, and not
trained with. The others race (`racing` beside this file): the demo's small student from the weights
that ship with it, photos of 96 pixels, one run a core. It is a hint for a large student, no proof.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from box_store import BoxStore
from box_store.selection.choosing import Choice
from student_train.data.splits import open_split
from student_train.settings.origin import Kind, Origin
from student_train.settings.overrides import Layer
from student_train.training.choice import with_choice
from student_train.training.inputs import train_source
from teach_detr.experiment.config import Plan, plan_of
from teach_detr.experiment.grid import Cell, Grid
from teach_detr.experiment.outcome import HELPS, HURTS
from teach_detr.experiment.own_data import arms_of, own_data
from teach_detr.experiment.tables import signed
from teach_detr.toy_teachers.shipped import START_STUDENT, weights_folder

_MOST_RUNS_AT_ONCE = 8


@dataclass(frozen=True)
class Answer:
    """What to do with a teacher, and why."""

    teacher: str
    answer: Literal["use it", "leave it out", "no difference seen"]
    reason: str

    def __str__(self) -> str:
        return f"{self.teacher}: {self.answer}: {self.reason}"


def quick_plan(
    store: Path, options: Sequence[Layer], overrides: Mapping[str, str]
) -> tuple[Plan, list[Choice]]:
    """A short experiment with the teachers that the annotations do not speak against.

    Returns it and what they say of every teacher. `options` and `overrides` as of `own_data`.

    Raises:
        StoreError, UsageError, ConfigError: as `own_data`. DataError: boxes of other images.
    """
    given = {key for layer in options for key in layer.values} | set(overrides)
    plan = own_data(store, [_short(given), *options], overrides)
    choices = [_choice(plan, name) for name in BoxStore.open(store).teachers]
    taken = [choice.teacher for choice in choices if choice.is_taken]
    config = replace(plan.config, arms=arms_of(taken, fused=False))
    return plan_of(config), choices


def answers(choices: Sequence[Choice], outcome: Mapping[str, Any]) -> list[Answer]:
    """An answer for every teacher; `choices` as `quick_plan` gives them, the outcome as JSON, empty
    where nothing was trained.
    """
    (arms,) = outcome.get("conditions", {"": {}}).values()
    return [_answer(choice, arms.get(choice.teacher)) for choice in choices]


def with_answers(outcome: Mapping[str, Any], found: Sequence[Answer]) -> dict[str, Any]:
    """The outcome as JSON, the answers first."""
    return {"answers": [asdict(answer) for answer in found], **outcome}


def _answer(choice: Choice, arm: Mapping[str, Any] | None) -> Answer:
    if not choice.is_taken:
        return Answer(choice.teacher, "leave it out", choice.reason)
    gap = arm and arm["difference"]
    if arm is None or gap is None:
        return Answer(choice.teacher, "no difference seen", "none of its runs came to its end")
    mean, low, high = (signed(gap[key]) for key in ("mean", "low", "high"))
    reason = f"{mean} AP ({low} to {high}) in {gap['n_seeds']} pairs of runs"
    if arm["verdict"] == HELPS:
        return Answer(choice.teacher, "use it", reason)
    if arm["verdict"] == HURTS:
        return Answer(choice.teacher, "leave it out", reason)
    return Answer(choice.teacher, "no difference seen", reason)


def _choice(plan: Plan, name: str) -> Choice:
    """From all training annotations: which are drawn for the runs matters little."""
    data = replace(plan.config.data, images=None)
    grid = Grid(replace(plan, config=replace(plan.config, data=data)))
    (condition,) = plan.conditions
    student = grid.student(Cell(condition, name, plan.config.seeds[0]))
    _, (choice,) = with_choice(student, open_split(train_source(student.config)))
    return choice


def _short(given: Collection[str]) -> Layer:
    """Settings of short runs, under what a user gives; `given` are the keys of that."""
    cores = len(os.sched_getaffinity(0))
    at_once = 1 if torch.cuda.is_available() else min(cores, _MOST_RUNS_AT_ONCE)
    values: dict[str, Any] = {
        "race": True,
        "seeds": (0, 1, 2, 3, 4),
        "devices": ("auto",) if torch.cuda.is_available() else ("cpu",) * at_once,
        "data.images": 400,
        "student.preset": "dino-demo",
        "student.settings": {
            "init": str(weights_folder() / START_STUDENT),
            "steps": 130,
            "batch_size": 8,
            "eval_every": 0,
            "threads": 1,
            "optim": {"warmup_steps": 20},
            "augment": {
                "short_sides": [72, 80, 88, 96],
                "long_side": 144,
                "eval_short_side": 96,
                "eval_long_side": 144,
            },
        },
    }
    settings = values["student.settings"]
    if "student.settings.epochs" in given:
        del settings["steps"]
    if "student.preset" in given:
        # the weights are of the demo's student
        del settings["init"]
    return Layer(Origin(Kind.OTHER, "--quick"), values)
