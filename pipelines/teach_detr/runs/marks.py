"""What decides what a student becomes: its settings, and its teachers as a store has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from box_store import BoxStore
from box_store.errors import StoreError
from student_train.config import ALL_TEACHERS, NO_TEACHERS, TrainConfig
from student_train.settings.overrides import Resolved, settings, to_plain


def fingerprints(store: Path) -> dict[str, str]:
    """The teachers in a store with their fingerprints; none where there is no store yet."""
    try:
        records = BoxStore.open(store).teachers
    except StoreError:
        return {}
    return {name: record.fingerprint for name, record in records.items()}


def decisive(resolved: Resolved[TrainConfig], known: Mapping[str, str]) -> dict[str, Any]:
    """Settings that are not at their default, and teachers; for a mark that a student is done.

    known: the fingerprints of the teachers in its store.
    """
    values = settings(resolved.config)
    return {
        "settings": {key: to_plain(values[key].value) for key in resolved.origins},
        "teachers": used_teachers(resolved.config.teachers.names, known),
    }


def used_teachers(names: tuple[str, ...], known: Mapping[str, str]) -> dict[str, str | None]:
    """Of `known`, those that the setting `teachers.names` stands for."""
    if names == NO_TEACHERS:
        return {}
    if names == ALL_TEACHERS:
        return dict(known)
    return {name: known.get(name) for name in names}
