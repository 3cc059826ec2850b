"""Saved states of a run, for resuming exactly: written whole, checked when read, the last few kept.

::

    checkpoints/states.json                    which states there are, newest first, with checksums
    checkpoints/step-00000500-3fa9c1d2.pt      one state: the step, and the start of its SHA-256

A state holds only tensors, numbers, strings and containers, so it loads with
`torch.load(weights_only=True)`. A new file is written beside the others, made durable, read back,
renamed and only then listed; older ones go last. Killed at any moment, the folder keeps a whole
state and a list that is true.
"""

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Generic, TypeVar, cast

import torch
from torch import Tensor

from box_store.places.durable import temporary_beside
from box_store.places.files import move_into_place, replacing
from box_store.places.locations import Location, RemoteError, RemotePath, size_of, staged
from student_train.errors import CheckpointError

FORMAT = "teach-detr training state 1"
LIST = "states.json"
"""which states there are"""
P = TypeVar("P", Path, RemotePath, Location)
_NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{8})\.pt")


@dataclass(frozen=True)
class SavedState:
    """One line of the list."""

    file: str
    step: int
    bytes: int
    sha256: str


class SavedStates(Generic[P]):
    """The states of a run, to be read, at a path or a URL."""

    def __init__(self, root: P) -> None:
        self.root = root

    def load(self) -> tuple[dict[str, Any], str]:
        """The newest state that can be read, and a note about newer ones that cannot ("" if none).

        Raises:
            CheckpointError: there is none.
        """
        complaints: list[str] = []
        for entry in self.entries():
            try:
                return self._read(entry), " ".join(complaints)
            except CheckpointError as error:
                complaints.append(f"{error}; going back to the state before it.")
        if complaints:
            raise CheckpointError(f"no readable state in {self.root}: " + " ".join(complaints))
        raise CheckpointError(f"no saved state in {self.root}")

    def exists(self) -> bool:
        """Whether there is something to resume."""
        return bool(self.entries())

    def newest_step(self) -> int:
        """The step of the newest state; -1 without one."""
        return max((entry.step for entry in self.entries()), default=-1)

    def entries(self) -> list[SavedState]:
        """What the list says, newest first; where it is damaged or gone, what the names say."""
        try:
            table = json.loads((self.root / LIST).read_bytes())
            return [SavedState(**row) for row in table["states"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, RemoteError) and not isinstance(error, FileNotFoundError):
                raise
            return sorted(self._named(), key=lambda entry: -entry.step)

    def _named(self) -> Iterator[SavedState]:
        for path in self.root.glob("step-*.pt"):
            if name := _NAME.fullmatch(path.name):
                yield SavedState(path.name, int(name[1]), size_of(path), name[2])

    def _read(self, entry: SavedState) -> dict[str, Any]:
        path = self.root / entry.file
        try:
            copy = staged(path)
            found = _sha256(copy)
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error
        if not found.startswith(entry.sha256):
            raise CheckpointError(f"{path} is damaged (its checksum is not the listed one)")
        return read_state(copy)


class StateFolder(SavedStates[Path]):
    """The states of a run at work, of which the newest `keep` stay."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        super().__init__(root)
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps; the oldest beyond `keep` go.

        Raises:
            CheckpointError: the file cannot be written (disk full, no permission) or does not read
                back as it was written; the states before it are kept.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep({entry.file for entry in self.entries()})
            written = self._write(step, state)
            former = [entry for entry in self.entries() if entry.step != step]
            kept = [written, *former][: self.keep]
            self._list(kept)
            self._sweep({entry.file for entry in kept})
        except (OSError, RuntimeError) as error:
            # torch.save reports a full disk as a RuntimeError of its zip writer
            with suppress(OSError):
                self._sweep({entry.file for entry in self.entries()})
            raise CheckpointError(
                f"cannot save the state of step {step} in {self.root}: {_reason(error)}"
            ) from error
        return self.root / written.file

    def newest(self) -> Path | None:
        """The file of the newest state."""
        entries = self.entries()
        return self.root / entries[0].file if entries else None

    def clear(self) -> None:
        """Remove all states."""
        (self.root / LIST).unlink(missing_ok=True)
        if self.root.is_dir():
            self._sweep(set())

    def _write(self, step: int, state: Mapping[str, Any]) -> SavedState:
        # the final name holds the checksum, which is known only afterwards
        with temporary_beside(self.root / f"step-{step:08d}.pt") as (file, temporary):
            hashed = _Hashed(file)
            torch.save({"format": FORMAT, **state}, cast(IO[bytes], hashed))
            file.flush()
            digest = hashed.digest.hexdigest()
            if _sha256(temporary) != digest:
                raise OSError("what was read back differs from what was written")
            size = temporary.stat().st_size
        final = self.root / f"step-{step:08d}-{digest[:8]}.pt"
        move_into_place(temporary, final)
        return SavedState(final.name, step, size, digest)

    def _list(self, entries: list[SavedState]) -> None:
        with replacing(self.root / LIST) as file:
            file.write(list_of(entries))

    def _sweep(self, listed: set[str]) -> None:
        """Remove states that are not listed, and what writers that were killed left behind."""
        for path in [*self.root.glob("step-*.pt"), *self.root.glob(".*.tmp")]:
            if path.name not in listed:
                path.unlink(missing_ok=True)


def list_of(entries: Sequence[SavedState]) -> bytes:
    """The content of `states.json`."""
    table = {"format": 1, "states": [asdict(entry) for entry in entries]}
    return (json.dumps(table, indent=2) + "\n").encode()


class _Hashed:
    """A file that computes the SHA-256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    """The system's words where there are some: torch wraps a failing write in its own."""
    while error.__cause__ is not None or error.__context__ is not None:
        inner = error.__cause__ or error.__context__
        assert inner is not None
        error = inner
    return getattr(error, "strerror", None) or str(error)


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
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        kind = (
            state.get("format", "something else") if isinstance(state, dict) else "something else"
        )
        raise CheckpointError(f"{path} holds {kind!r}, expected {FORMAT!r}")
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
