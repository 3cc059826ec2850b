"""Reading weights files from strangers without running anything they contain."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from student_train.errors import CheckpointError

# official .pth files keep their settings beside the weights, as this one plain class
_HARMLESS: list[Any] = [argparse.Namespace]


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a .safetensors or torch file, on the CPU.

    Looks under `model`, `state_dict`, `model_state_dict`, `model_ema` or `module` where the file
    holds more than weights, and strips `module.` (DistributedDataParallel). Torch files are read
    with `weights_only=True`: no code in them runs; an `argparse.Namespace`, which official
    checkpoints carry, is the one class let through.

    Raises CheckpointError if the file is missing, unreadable, unsafe, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            # a file of another pickle protocol either loads or is refused below
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).splitlines()[0] if str(error) else "unsafe content"
        raise CheckpointError(
            f"{path} was refused: it holds more than weights and plain settings, and reading that "
            f"could run code ({first}). Load it where you trust it and save its state dict alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} is not a readable torch file: {error}") from error
    return _state_dict(content, path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict", "model_state_dict", "model_ema", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    weights = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not weights:
        raise CheckpointError(f"{path} holds no weights; its keys are {_sample(content)}")
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def _sample(names: Mapping[object, object], count: int = 5) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:count])
    return shown + (", ..." if len(names) > count else "") if names else "none"
