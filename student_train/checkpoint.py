"""Saved states of a run (exact resuming) and single-file weights (everything else).

A state is `checkpoints/last.pt`: only tensors, numbers, strings and containers, so it loads with
`torch.load(weights_only=True)`. The one before it stays as `checkpoints/previous.pt`. Weights are
`.safetensors` whose metadata holds the configuration and the category table: one file is enough to
predict with.
"""

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from student_train.errors import CheckpointError

STATE_FORMAT = "teach-detr training state 1"
WEIGHTS_FORMAT = "teach-detr weights 1"


def save_state(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write `last.pt`; the former one becomes `previous.pt`. A whole state exists at any moment.

    Raises:
        CheckpointError: the file cannot be written (disk full, no permission); states written
            before are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last, previous, partial = (
        folder / name for name in ("last.pt", "previous.pt", "last.pt.partial")
    )
    try:
        with partial.open("wb") as file:
            torch.save({"format": STATE_FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if last.exists():
            last.replace(previous)
        partial.replace(last)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot save the state to {last}: {error}") from error
    return last


def load_state(folder: Path) -> tuple[dict[str, Any], str]:
    """The newest state that can be read, and a note if that was not `last.pt` ("" otherwise).

    Raises:
        CheckpointError: there is none.
    """
    complaints: list[str] = []
    for name in ("last.pt", "previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            return read_state(path), " ".join(complaints)
        except CheckpointError as error:
            complaints.append(f"{error}; going back to the state before it.")
    if complaints:
        raise CheckpointError(f"no readable state in {folder}: " + " ".join(complaints))
    raise CheckpointError(f"no saved state in {folder}; expected last.pt")


def read_state(path: Path) -> dict[str, Any]:
    """One state file.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__})") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        kind = (
            state.get("format", "something else") if isinstance(state, dict) else "something else"
        )
        raise CheckpointError(f"{path} holds {kind!r}, expected {STATE_FORMAT!r}")
    return state


def is_state(path: Path) -> bool:
    """Whether a file is a saved state, and not another checkpoint of that suffix."""
    try:
        read_state(path)
    except CheckpointError:
        return False
    return True


def state_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a state that a student is judged by: the average where there is one."""
    return (state["average"] or state)["model"]


def save_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a `.safetensors` file with `about` (JSON-able: config, classes) as its metadata.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    metadata = {"format": WEIGHTS_FORMAT, "teach_detr": json.dumps(about)}
    try:
        save_file(_without_shared(tensors), partial, metadata=metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error}") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the metadata that `save_weights` wrote ({} in a foreign file).

    Raises:
        CheckpointError: the file is missing or is not safetensors.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            about = json.loads((file.metadata() or {}).get("teach_detr", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def _without_shared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU copies; of names that share one tensor (heads of all layers) each gets its
    own.
    """
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class InitReport:
    """What came of loading weights into a model that may differ from their own."""

    loaded: int
    missing: tuple[str, ...]
    """parameters of the model that the file does not have: they keep their initial values"""
    unused: tuple[str, ...]
    """tensors of the file that the model does not have"""
    other_shape: tuple[str, ...]
    """names that both have, with different shapes: the model's initial values stay"""

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.loaded} tensors loaded"]
        for names, words in (
            (self.missing, "not in the file"),
            (self.other_shape, "of another shape"),
            (self.unused, "of the file not used"),
        ):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                parts.append(f"{len(names)} {words} ({shown})")
        return "; ".join(parts)


def load_matching(model: nn.Module, tensors: Mapping[str, Tensor]) -> InitReport:
    """Copy every tensor whose name and shape the model shares (fine-tuning on other classes).

    Raises:
        CheckpointError: not one fits.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise CheckpointError("none of the tensors fits this model: was it another architecture?")
    model.load_state_dict(fitting, strict=False)
    return InitReport(
        loaded=len(fitting),
        missing=tuple(sorted(set(own) - set(tensors))),
        unused=tuple(sorted(set(tensors) - set(own))),
        other_shape=tuple(sorted(k for k in tensors if k in own and k not in fitting)),
    )
