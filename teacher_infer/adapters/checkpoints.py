"""Checkpoints of training scripts: whatever they are wrapped in, the weights that fit a model.

Scripts save a state dict alone, under a key (`model`, `state_dict`, `model_state_dict`, `ema`),
under two, and with names behind a prefix of their own (`module.` of several GPUs, `model.` of
Lightning, `_orig_mod.` of torch.compile). So the model is asked: its weights are the group of
tensors in the file that has its names, behind whatever prefix all of them share.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_infer.adapters.protocol import AdapterError

Tensors = dict[str, Any]

_COUNTERS = "num_batches_tracked"
_COMPILED = "_orig_mod."
# where groups fit alike: weights as trained, before their averages
_PREFERRED = ("state_dict", "model", "model_state_dict")
_DEPTH = 3
# names of the model that are looked for behind a prefix
_PROBES = 5
_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: groups of tensors by the keys that lead to them, and its metadata."""

    path: Path
    groups: dict[str, Tensors]
    meta: Any
    keys: tuple[str, ...]

    def describe(self) -> str:
        """Its keys and the first names of tensors, for messages."""
        parts = [f"its keys are {_some(self.keys)}"]
        for key, tensors in self.groups.items():
            where = f"{key!r} holds" if key else "it holds"
            parts.append(f"{where} {len(tensors)} tensors ({_some(list(tensors))})")
        return "; ".join(parts)


def read_checkpoint(path: Path, allowed: tuple[Any, ...] = ()) -> Checkpoint:
    """Read safetensors, or a torch file under `weights_only`, so that it can't run code.

    `allowed` are further classes that may be built. What training scripts save beside tensors
    (arguments, paths, NumPy's numbers) is admitted as something without content.

    Raises:
        AdapterError: it can't be read; names the class that was refused, and what to do.
    """
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
        return Checkpoint(path, {"": tensors}, {}, tuple(tensors))
    content = _read_torch(path, allowed)
    if not isinstance(content, Mapping):
        raise AdapterError(
            f"{path}: expected a checkpoint with tensors by name, got a {type(content).__name__}"
        )
    groups = dict(_groups(content, (), _DEPTH))
    if not groups:
        raise AdapterError(
            f"{path}: holds no tensors by name; its keys are {_some([str(key) for key in content])}"
        )
    return Checkpoint(path, groups, content.get("meta") or {}, tuple(map(str, content)))


def load_checkpoint(model: Any, checkpoint: Checkpoint) -> None:
    """Load all of a model's weights from the group of tensors that fits it best.

    Tensors beyond the model's are ignored (training leaves copies and counters behind). A detector
    of which a part stays random would fill the store with noise, so anything less is refused.

    Raises:
        AdapterError: the file lacks some weights, or shapes differ; shows what it holds.
    """
    own = model.state_dict()
    fitted = {key: _behind(own, tensors) for key, tensors in checkpoint.groups.items()}
    tensors = fitted[max(fitted, key=lambda key: (_n_fit(own, fitted[key]), _rank(key)))]
    missing = [name for name in own if name not in tensors and not name.endswith(_COUNTERS)]
    wrong = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    if missing or wrong:
        example = (wrong or missing)[0]
        got = list(tensors[example].shape) if wrong else "nothing"
        n_named = len(own) - len(missing)
        advice = (
            "Check the number of classes and the config"
            if n_named > len(own) / 2
            else "These are weights of another model, or the file keeps them under other names"
        )
        raise AdapterError(
            f"{checkpoint.path} doesn't fit the model: {len(missing)} of {len(own)} tensors are "
            f"missing and {len(wrong)} have another shape, first {example}: expected "
            f"{list(own[example].shape)}, got {got}. {advice}. What the file holds: "
            f"{checkpoint.describe()}"
        )
    model.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)


def _read_safetensors(path: Path) -> Tensors:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # its own, which shares no narrower base with what files raise
        raise AdapterError(f"{path}: can't be read as safetensors: {_plain(error)}") from error


def _read_torch(path: Path, allowed: tuple[Any, ...]) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals([*_HARMLESS, _TABLE, *allowed]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle and zip: they share no narrower base
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            message = f"{path}: can't be read as a checkpoint: {_plain(error)}"
        else:
            message = (
                f"{path}: can't be read as a checkpoint: it holds an object of {refused[1]}, which "
                "is code, and none is run here. Where you trust the file, load it with your own "
                "script and save its weights alone: torch.save(model.state_dict(), FILE)"
            )
        raise AdapterError(message) from error


def _plain(error: Exception) -> str:
    """The first line of a message, without codes for terminals."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    # torch's page of advice has its reason in the middle
    reason = re.search(r"WeightsUnpickler error: (.+)", text)
    text = reason[1] if reason else text
    return text.splitlines()[0] if text else type(error).__name__


def _groups(
    content: Mapping[Any, Any], keys: tuple[str, ...], depth: int
) -> Iterator[tuple[str, Tensors]]:
    """Every table in the file that holds tensors by name."""
    import torch

    tensors = {
        str(name).replace(_COMPILED, ""): value
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    if tensors:
        yield ".".join(keys), tensors
    for key, value in content.items():
        if isinstance(value, Mapping) and depth:
            yield from _groups(value, (*keys, str(key)), depth - 1)


def _behind(own: Mapping[str, Any], tensors: Tensors) -> Tensors:
    """The tensors without the prefix behind which most names of the model are found."""
    names = [name for name in own if not name.endswith(_COUNTERS)][:_PROBES]
    prefixes = {""}
    for name in names:
        prefixes |= {
            found.removesuffix(name)
            for found in tensors
            if found.endswith(f".{name}") or found == name
        }
    best = max(
        sorted(prefixes, key=len),
        key=lambda prefix: sum(f"{prefix}{name}" in tensors for name in own),
    )
    return {
        name.removeprefix(best): value for name, value in tensors.items() if name.startswith(best)
    }


def _n_fit(own: Mapping[str, Any], tensors: Tensors) -> int:
    return sum(name in tensors and tensors[name].shape == own[name].shape for name in own)


def _rank(key: str) -> int:
    """Among groups that fit alike: how much this one is preferred."""
    return -_PREFERRED.index(key) if key in _PREFERRED else -len(_PREFERRED)


def _some(names: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)})"


class _NoItems(type):
    """A class that can be gone through like a list, an empty one."""

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class _Inert(metaclass=_NoItems):
    """Stands for what scripts save beside tensors: built without running anything of it."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


# arguments, paths, NumPy's numbers and arrays, and mmengine's log: harmless as long as nothing of
# it is really called
_HARMLESS = tuple(
    (_Inert, name)
    for name in (
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.dtypes.Float64DType",
        "numpy.dtypes.Float32DType",
        "numpy.dtypes.Int64DType",
        "_codecs.encode",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "builtins.list",
        "builtins.dict",
        "builtins.int",
        "builtins.float",
    )
)
# a table with a factory, made from that factory: here from nothing
_TABLE = (OrderedDict, "collections.defaultdict")
# and methods that mmengine's log finds by getattr
MMENGINE_LOG = tuple(
    (_Inert, name) for name in ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr")
)
