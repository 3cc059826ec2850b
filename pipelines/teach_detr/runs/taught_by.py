"""Which teachers a student learns from, as a store has them: what a done-mark has to know."""

from collections.abc import Mapping
from pathlib import Path

from box_store import BoxStore
from box_store.errors import StoreError
from student_train.config import ALL_TEACHERS, NO_TEACHERS


def fingerprints(store: Path) -> dict[str, str]:
    """The teachers in a store with their fingerprints; none where there is no store yet."""
    try:
        records = BoxStore.open(store).teachers
    except StoreError:
        return {}
    return {name: record.fingerprint for name, record in records.items()}


def used_teachers(names: tuple[str, ...], known: Mapping[str, str]) -> dict[str, str | None]:
    """Of `known`, those that the setting `teachers.names` stands for."""
    if names == NO_TEACHERS:
        return {}
    if names == ALL_TEACHERS:
        return dict(known)
    return {name: known.get(name) for name in names}
