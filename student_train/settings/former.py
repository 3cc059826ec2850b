"""Settings as earlier versions wrote them, in today's keys: files, commands and run folders of old
still read, and mean what they meant.
"""

from collections.abc import Mapping
from typing import Any

# four tables of a value a teacher have become one table a teacher
_TABLES = {
    "teachers.score_floors": "score_floor",
    "teachers.top_ks": "top_k",
    "teachers.nms_ious": "nms_iou",
    "teachers.temperatures": "temperature",
}
# what runs did before there was a choice
_BEFORE: Mapping[str, Any] = {"teachers.choose": "none", "loss.teacher.counts": "own"}


def modern(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key, former keys replaced."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        table = next((t for t in _TABLES if key == t or key.startswith(t + ".")), None)
        if table is None:
            found[key] = value
        elif key == table and isinstance(value, Mapping):
            for name, item in value.items():
                found[f"teachers.each.{name}.{_TABLES[table]}"] = item
        else:
            found[f"teachers.each{key.removeprefix(table)}.{_TABLES[table]}"] = value
    return found


def recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a run folder; those that it does not know have the meaning of its time."""
    return {**_BEFORE, **modern(values)}
