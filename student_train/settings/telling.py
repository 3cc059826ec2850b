"""A configuration for people: what was set, and by what."""

from typing import Any

from student_train.settings.overrides import Resolved, as_text, settings


def describe_origins(resolved: Resolved[Any]) -> list[str]:
    """Settings that are not at their default, grouped by where they came from; a line a group."""
    values = settings(resolved.config)
    groups: dict[str, list[str]] = {}
    for key, origin in resolved.origins.items():
        if key in values and key != "preset":
            groups.setdefault(str(origin), []).append(f"{key}={as_text(values[key].value)}")
    return [f"settings  {origin}: {' '.join(items)}" for origin, items in groups.items()]
