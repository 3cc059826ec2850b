"""Reading weights files from strangers without running anything they contain."""

from __future__ import annotations

import argparse
import codecs
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from student_train.errors import CheckpointError

# where files that hold more than weights keep them
_PLACES = ("model", "state_dict", "model_state_dict", "model_ema", "module")


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds."""

    weights: dict[str, Tensor]
    """by name, on the CPU"""
    settings: dict[str, Any] = field(default_factory=dict)
    """what official training scripts keep beside the weights as `args`; empty if there is none"""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """everything else of the file"""


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a weights file, on the CPU; see `read_weights_file`."""
    return read_weights_file(path).weights


def read_weights_file(path: Path | str) -> WeightsFile:
    """The weights in a .safetensors, torch, or detectron2 .pkl file, and the settings beside them.

    Looks under `ema.module`, `model`, `state_dict`, `model_state_dict`, `model_ema` or `module`
    where the file holds more than weights, and strips `module.` (DistributedDataParallel). Torch
    files are read with `weights_only=True`, so no code in them runs. Let through besides tensors
    are the `argparse.Namespace` of official files and, as empty shells, the log records that
    mmengine keeps in its files; of a .pkl, numpy arrays alone.

    Raises CheckpointError if the file is missing, unreadable, unsafe, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}")
    if path.suffix == ".safetensors":
        try:
            return WeightsFile(load_file(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        content = _read_arrays(path) if path.suffix == ".pkl" else _read_torch(path)
    except pickle.UnpicklingError as error:
        first = str(error).splitlines()[0] if str(error) else "unsafe content"
        raise CheckpointError(
            f"{path} was refused: it holds more than weights and plain settings, and reading that "
            f"could run code ({first}). Load it where you trust it and save its state dict alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        kind = "pickle" if path.suffix == ".pkl" else "torch"
        raise CheckpointError(f"{path} is not a readable {kind} file: {error}") from error
    return _sort_out(content, path)


def _read_torch(path: Path) -> object:
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        # a file of another pickle protocol either loads or is refused
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


class _Shell:
    """Stands for an object of a foreign library whose content is not wanted."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_HARMLESS: list[Any] = [
    argparse.Namespace,
    # what `mmengine` keeps about a training run's losses: nothing of it is called or built
    *(
        (_Shell, name)
        for name in (
            "mmengine.logging.history_buffer.HistoryBuffer",
            "__builtin__.getattr",
            "builtins.getattr",
            "_codecs.encode",
            "numpy.ndarray",
            "numpy.dtype",
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
        )
    ),
]


class _ArraysUnpickler(pickle.Unpickler):
    """Builds containers and numpy arrays, and refuses every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        plain = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): codecs.encode,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) in plain:
            return plain[module, name]
        # wherever this version of numpy keeps what pickled arrays and numbers are rebuilt with
        builders: dict[str, Any] = {
            "_reconstruct": np.empty(0).__reduce__()[0],
            "scalar": np.float64().__reduce__()[0],
        }
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in builders:
            return builders[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read_arrays(path: Path) -> object:
    with path.open("rb") as file:
        # files of Python 2 hold arrays as text
        return _ArraysUnpickler(file, encoding="latin1").load()


def _sort_out(content: object, path: Path) -> WeightsFile:
    beside: Mapping[str, Any] = {}
    average = content.get("ema") if isinstance(content, Mapping) else None
    if isinstance(average, Mapping) and isinstance(average.get("module"), Mapping):
        # RT-DETR, D-FINE and DEIM keep the average of the weights, which they publish, so
        assert isinstance(content, Mapping)
        beside = {str(k): v for k, v in content.items() if k not in ("ema", "model")}
        return _sort_weights(average["module"], beside, path)
    for key in _PLACES:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = {str(k): v for k, v in content.items() if k != key}
            content = content[key]
            break
    return _sort_weights(content, beside, path)


def _sort_weights(content: object, beside: Mapping[str, Any], path: Path) -> WeightsFile:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    weights = {
        str(k): v if isinstance(v, Tensor) else torch.from_numpy(np.array(v))
        for k, v in content.items()
        if isinstance(v, Tensor | np.ndarray)
    }
    if not weights:
        raise CheckpointError(f"{path} holds no weights; its keys are {_sample(content)}")
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    settings = beside.get("args")
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    return WeightsFile(weights, dict(settings) if isinstance(settings, Mapping) else {}, beside)


def _sample(names: Mapping[object, object], count: int = 5) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:count])
    return shown + (", ..." if len(names) > count else "") if names else "none"


OURS = "teach_detr"
"""where a torch file keeps our own settings"""
