"""The experiment on somebody's own data: its arms follow from the teachers of a filled store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from box_store import BoxStore
from box_store.errors import UsageError
from student_train.settings.origin import ARGUMENT, Kind, Origin
from student_train.settings.overrides import Layer, merge
from teach_detr.experiment.config import ExperimentConfig, Plan, plan_of, problems_of

NONE = "none"


def own_data(store: Path, options: Sequence[Layer], overrides: Mapping[str, str]) -> Plan:
    """No teachers, each teacher alone, and with two or more all in parallel and all fused.

    options: data set, store and whatever else was given; `overrides` are stronger.

    Raises:
        StoreError: there is no store. UsageError: it holds no teacher. ConfigError: an override.
    """
    names = list(BoxStore.open(store).teachers)
    if not names:
        raise UsageError(f"the store {store} holds no teacher: fill it with `teacher-infer run`")
    values = {
        "out": "experiment",
        "student.preset": "dino-r50-4scale",
        "reference": NONE,
        "arms": arms_of(names),
    }
    layers = [Layer(Origin(Kind.OTHER, "teachers of the store"), values), *options]
    layers.append(Layer(ARGUMENT, overrides))
    return plan_of(merge(ExperimentConfig(), layers, problems_of).config)


def arms_of(teachers: list[str], *, fused: bool = True) -> dict[str, Any]:
    """The arms for these teachers, as tables of a file; `fused`: with one for all of them fused."""
    arms: dict[str, Any] = {NONE: {"teachers": NONE}}
    arms |= {name: {"teachers": name} for name in teachers}
    together = ",".join(teachers)
    if len(teachers) > 1:
        arms["parallel"] = {"teachers": together}
    if len(teachers) > 1 and fused:
        arms["fused"] = {"teachers": together, "settings": {"teachers.combine": "fused"}}
    return arms


def option_layers(
    *,
    data: Path | None,
    store: Path | None,
    preset: str | None,
    images: int | None,
    epochs: int | None,
    seeds: int | None,
    init: Path | None,
    out: Path | None,
) -> list[Layer]:
    """The options of the command that were given, as settings of an experiment."""
    given: dict[str, tuple[str, Any]] = {
        "--data": ("data.root", data),
        "--store": ("store.path", store),
        "--preset": ("student.preset", preset),
        "--images": ("data.images", images),
        "--epochs": ("student.settings.epochs", epochs),
        "--seeds": ("seeds", seeds and tuple(range(seeds))),
        "--init": ("student.settings.init", init and str(init.absolute())),
        "--out": ("out", out),
    }
    return [
        Layer(Origin(Kind.ARGUMENT, option), {key: value})
        for option, (key, value) in given.items()
        if value is not None
    ]
