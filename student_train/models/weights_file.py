"""Reading weights files from strangers without running anything they contain."""

from __future__ import annotations

import argparse
import codecs
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from student_train.errors import CheckpointError

# where files that hold more than weights keep them, the first of them first; RT-DETR, D-FINE and
# DEIM keep the average of the weights, which they publish, as `ema.module`
_PLACES = (
    *("ema", "model", "state_dict", "model_state_dict", "model_ema", "ema_model"),
    *("ema_state_dict", "module", "weights"),
)
_DEPTH = 3


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

    Looks under `ema.module`, `model`, `state_dict` and the like where the file holds more than
    weights, and strips `module.` (DistributedDataParallel) and `_orig_mod.` (`torch.compile`).
    Torch files are read with `weights_only=True`, so no code in them runs. Let through besides
    tensors are the `argparse.Namespace` of official files, paths as text and, as empty shells,
    `defaultdict` and the log records that mmengine keeps; of a .pkl, numpy arrays alone.

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
        raise CheckpointError(_refusal(path, error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        kind = "pickle" if path.suffix == ".pkl" else "torch"
        raise CheckpointError(f"{path} is not a readable {kind} file: {error}") from error
    return _sort_out(content, path)


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """A sentence that names what was refused, where that is known."""
    names = re.findall(r"(?:GLOBAL|names) ([A-Za-z_][\w.]*\.\w+)", str(error))
    # of a torch file all of them, not the first alone
    with suppress(Exception), torch.serialization.safe_globals(_HARMLESS):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path) or names
    if not names:
        # torch's page of advice has its reason in the middle
        reason = re.search(r"WeightsUnpickler error: (.+)", str(error))
        words = reason[1] if reason else next(iter(str(error).splitlines()), "")
        return f"{path} is not a readable torch file: {words or 'damaged'}"
    return (
        f"{path} was refused: it holds objects of {', '.join(sorted(set(names)))} beside its "
        "weights, and building them could run code. Where you trust the file, load it with your "
        "own script and save its weights alone: torch.save(model.state_dict(), FILE)"
    )


def _read_torch(path: Path) -> object:
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        # a file of another pickle protocol either loads or is refused
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


class _NoItems(type):
    """A class that can be gone through like a list, an empty one."""

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class _Factory(metaclass=_NoItems):
    """Stands for what a `defaultdict` fills itself with."""


class _Shell:
    """Stands for an object of a foreign library whose content is not wanted."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _path_text(*parts: object) -> str:
    """A path of a training script's arguments."""
    return "/".join(map(str, parts)).replace("//", "/")


_HARMLESS: list[Any] = [
    argparse.Namespace,
    # a table with a factory, made from that factory: here from nothing
    (OrderedDict, "collections.defaultdict"),
    *(
        (_path_text, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    # factories of such tables
    *((_Factory, f"builtins.{name}") for name in ("list", "dict", "int", "float", "set")),
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
    keys = _place(content, _DEPTH) if isinstance(content, Mapping) else None
    if not keys:
        return _sort_weights(content, {}, path)
    assert isinstance(content, Mapping)
    beside = {str(k): v for k, v in content.items() if k != keys[0] and k not in ("ema", "model")}
    weights: Any = content
    for key in keys:
        weights = weights[key]
    return _sort_weights(weights, beside, path)


def _place(content: Mapping[Any, Any], depth: int) -> tuple[str, ...] | None:
    """The keys that lead to the weights of a file: () for the file itself, None where it has none
    in a place that is known.
    """
    for key in _PLACES:
        inner = content.get(key)
        if isinstance(inner, Mapping) and depth:
            found = _place(inner, depth - 1)
            if found is not None:
                return (key, *found)
    tensors = [name for name, value in content.items() if isinstance(value, Tensor | np.ndarray)]
    # beside other things: a counter of an average is no weight
    has_weights = len(tensors) == len(content) or any("." in str(name) for name in tensors)
    return () if tensors and has_weights else None


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
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    settings = beside.get("args")
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    return WeightsFile(weights, dict(settings) if isinstance(settings, Mapping) else {}, beside)


def _sample(names: Mapping[object, object], count: int = 5) -> str:
    shown = ", ".join(repr(str(name)) for name in list(names)[:count])
    return shown + (", ..." if len(names) > count else "") if names else "none"


OURS = "teach_detr"
"""where a torch file keeps our own settings"""
