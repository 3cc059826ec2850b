"""A resolved configuration as a file: every setting with its type and its origin, nothing to parse
twice.

`config.json` of a run folder is such a file with more in it; `student-train train --config` takes
either.
"""

import json
from pathlib import Path
from typing import Any

from box_store.places.files import write_json
from box_store.places.locations import Location
from student_train.config import TrainConfig, as_plain, from_plain
from student_train.errors import RunError
from student_train.settings.origin import Origin
from student_train.settings.overrides import Resolved

_FORMAT = 1


def to_json(resolved: Resolved[TrainConfig]) -> dict[str, Any]:
    """The content of such a file."""
    return {
        "format": _FORMAT,
        "preset": resolved.config.preset,
        "config": as_plain(resolved.config),
        "origins": {key: str(origin) for key, origin in resolved.origins.items()},
    }


def from_json(content: Any, path: Location) -> Resolved[TrainConfig]:
    """The inverse of `to_json`; `path` is named in errors.

    Raises:
        RunError: another version or another program wrote this.
        ConfigError: settings that this version does not know.
    """
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise RunError(f"{path} was not written by this version of student-train")
    config, origins = content.get("config"), content.get("origins")
    if not isinstance(config, dict) or not isinstance(origins, dict):
        raise RunError(f"{path} has no configuration with its origins: it was edited or cut short")
    read = {key: Origin.parse(str(text)) for key, text in origins.items()}
    return Resolved(from_plain(config, str(path)), read)


def write_settings(path: Path, resolved: Resolved[TrainConfig]) -> None:
    """Write such a file, whole or not at all."""
    write_json(path, to_json(resolved))


def read_json(path: Location) -> Any:
    """Its content, still plain tables and lists.

    Raises:
        RunError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"no configuration at {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None


def read_settings(path: Location) -> Resolved[TrainConfig]:
    """Read such a file. Raises as `read_json` and `from_json`."""
    return from_json(read_json(path), path)
