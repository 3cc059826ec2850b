"""Weights by name: `hub:ORG/NAME[@REVISION]`, downloaded once and kept by huggingface-hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from student_train.errors import CheckpointError
from student_train.models.hub.folder import PICKLED, SAFE

_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_ALWAYS = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True)
class Fetched:
    """Where weights lie on this machine."""

    path: Path
    record: dict[str, str] = field(default_factory=dict)
    """where they came from, for the run's record: repository and commit"""


def is_hub_name(path: object) -> bool:
    """Whether a path is meant for the hub."""
    return str(path).startswith("hub:")


def fetch(path: Path | str) -> Fetched:
    """A path as it is; of `hub:ORG/NAME[@REVISION]` the folder that it was downloaded to.

    Safetensors are preferred; only where a repository has none are pickled weights fetched, which
    are then read by the safe loader.

    Raises CheckpointError for a name that is none, and where nothing can be downloaded and nothing
    is kept.
    """
    if not is_hub_name(path):
        return Fetched(Path(path))
    found = _NAME.fullmatch(str(path))
    if found is None:
        raise CheckpointError(f"expected hub:ORG/NAME or hub:ORG/NAME@REVISION, got {str(path)!r}")
    name, revision = found[1], found[2]
    folder = _download(name, revision, (f"{SAFE}*", "model-*.safetensors"))
    if not any(folder.glob("*.safetensors")):
        folder = _download(name, revision, (f"{PICKLED}*", "pytorch_model-*.bin"))
    # the cache names a snapshot by its commit
    return Fetched(folder, {"hub": f"{name}@{folder.name}"})


def _download(name: str, revision: str | None, weights: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_ALWAYS, *weights]))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name} cannot be downloaded, and is not kept on this machine: the hub is out of "
            f"reach, or HF_HUB_OFFLINE is set. Put config.json and {SAFE} of "
            f"https://huggingface.co/{name} into a folder and give that folder"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(f"{name} cannot be downloaded: {first}") from error
