"""What is in a folder that transformers wrote, read without running anything of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.weights_file import read_checkpoint

SAFE = "model.safetensors"
PICKLED = "pytorch_model.bin"


@dataclass(frozen=True)
class HubFolder:
    """Settings and tensors of a folder."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    files: tuple[Path, ...]
    """that the tensors came from"""


def is_hub_folder(path: Path) -> bool:
    """Whether a path is a folder that says what model it holds."""
    return path.is_dir() and (path / "config.json").is_file()


def has_hub_weights(path: Path) -> bool:
    """Whether it holds weights too, which tells it from a run folder, whose settings have the same
    file name.
    """
    names = (SAFE, PICKLED, f"{SAFE}.index.json", f"{PICKLED}.index.json")
    return is_hub_folder(path) and any((path / name).is_file() for name in names)


def read_hub_folder(path: Path) -> HubFolder:
    """A folder of transformers: `config.json`, and `model.safetensors`, or `pytorch_model.bin` read
    by the safe loader, whole or in shards.

    Raises CheckpointError for a folder without either, an index that does not fit its shards, and
    files that cannot be read or would run code.
    """
    config = _json(path / "config.json")
    for name in (SAFE, PICKLED):
        if (path / name).is_file():
            return HubFolder(path, config, read_checkpoint(path / name), (path / name,))
        index = path / f"{name}.index.json"
        if index.is_file():
            weights, files = _shards(index)
            return HubFolder(path, config, weights, files)
    raise CheckpointError(
        f"no weights in {path}: expected {SAFE} or {PICKLED}, or their shards with an index; there "
        f"are {', '.join(sorted(each.name for each in path.iterdir()))}"
    )


def _shards(index: Path) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map: which shard holds what is not known")
    weights: dict[str, Tensor] = {}
    files = []
    for name in sorted({str(each) for each in places.values()}):
        file = index.parent / name
        if file.parent.resolve() != index.parent.resolve():
            raise CheckpointError(f"{index} names a shard outside its folder: {name}")
        weights |= read_checkpoint(file)
        files.append(file)
    missing = [key for key in places if key not in weights]
    if missing:
        raise CheckpointError(
            f"{index} promises {len(missing)} tensors that no shard holds, first {missing[0]!r}"
        )
    return weights, tuple(files)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not settings")
    return content
