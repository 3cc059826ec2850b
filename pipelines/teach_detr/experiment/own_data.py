"""The experiment on somebody's own data: its arms follow from the teachers of a filled store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from box_store import BoxStore
from box_store.errors import UsageError
from student_train.settings.overrides import Layer, merge
from teach_detr.experiment.config import ExperimentConfig, Plan, plan_of

NONE = "none"


def own_data(
    data: Path,
    store: Path,
    preset: str,
    n_seeds: int,
    overrides: Mapping[str, str],
    *,
    images: int | None,
    epochs: int | None,
    init: Path | None,
    out: Path,
) -> Plan:
    """No teachers, each teacher alone, and with two or more all in parallel and all fused.

    Raises:
        StoreError: there is no store. UsageError: it holds no teacher. ConfigError: an override.
    """
    names = list(BoxStore.open(store).teachers)
    if not names:
        raise UsageError(f"the store {store} holds no teacher: fill it with `teacher-infer run`")
    settings: dict[str, Any] = {}
    if epochs is not None:
        settings["epochs"] = epochs
    if init is not None:
        settings["init"] = str(init.absolute())
    values = {
        "out": out,
        "data.root": data,
        "data.images": images,
        "store.path": store,
        "student.preset": preset,
        "student.settings": settings,
        "seeds": tuple(range(n_seeds)),
        "reference": NONE,
        "arms": arms_of(names),
    }
    layers = [Layer("options", values), Layer("argument", overrides)]
    return plan_of(merge(ExperimentConfig(), layers).config)


def arms_of(teachers: list[str]) -> dict[str, Any]:
    """The arms for these teachers, as tables of a file."""
    arms: dict[str, Any] = {NONE: {"teachers": NONE}}
    arms |= {name: {"teachers": name} for name in teachers}
    if len(teachers) > 1:
        together = ",".join(teachers)
        arms["parallel"] = {"teachers": together}
        arms["fused"] = {"teachers": together, "settings": {"teachers.combine": "fused"}}
    return arms
