"""Every touch of the disk that must survive a crash: atomic files, exclusive files, a short lock.

All writing of a store goes through the functions below. On a local path (or a mounted file system
that renames atomically) a file is written beside its target, flushed and renamed. At a URL an
object appears as a whole when it is put; there are no locks, which is what `lease` is for.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from box_store.errors import UsageError
from box_store.places.durable import (
    make_local_folder,
    rename,
    replacing_local,
    sync_folder,
    temporary_beside,
)
from box_store.places.locations import Location, RemotePath

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: units are still atomic, only not serialised
    fcntl = None  # type: ignore[assignment]


def make_folder(path: Location) -> None:
    """Create a folder and its parents, and make their names durable."""
    if isinstance(path, RemotePath):
        path.make_folder()
    else:
        make_local_folder(path)


@dataclass(frozen=True)
class Upload:
    """What is to become an object: nothing of it is in the store before it is whole."""

    data: bytes

    def unlink(self, missing_ok: bool = False) -> None:
        """There is nothing to delete."""


def write_temporary(target: Location, data: bytes) -> Path | Upload:
    """Write `data` durably beside `target`; returns the temporary file (for a URL, the data)."""
    if isinstance(target, RemotePath):
        return Upload(data)
    with temporary_beside(target) as (file, temporary):
        file.write(data)
    return temporary


def move_into_place(temporary: Path | Upload, target: Location) -> None:
    """Give a finished temporary file its name, atomically and durably."""
    if isinstance(target, RemotePath):
        assert isinstance(temporary, Upload)
        target.put(temporary.data)
        return
    assert isinstance(temporary, Path)
    rename(temporary, target)


@contextmanager
def replacing(target: Location) -> Iterator[BinaryIO]:
    """A file that becomes `target`, as a whole, when the block ends without an error."""
    if isinstance(target, RemotePath):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            target.upload(file)
        return
    with replacing_local(target) as file:
        yield file


@contextmanager
def local_folder(place: Location) -> Iterator[Path]:
    """A folder of this machine to write into: `place` itself, made if there is none, or one whose
    files are put below the URL when the block ends without an error.
    """
    if isinstance(place, Path):
        make_folder(place)
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="teach-detr-") as name:
        folder = Path(name)
        yield folder
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            target = place / path.relative_to(folder).as_posix()
            target.parent.make_folder()
            with path.open("rb") as file:
                target.upload(file)


def check_writable(place: Location, advice: str = "choose another --out") -> None:
    """Find out before the work whether a folder can be written into; it is made if there is none. A
    URL says so only when something is put there.

    Raises:
        UsageError: it cannot be made, or takes no file.
    """
    if isinstance(place, RemotePath):
        return
    try:
        make_folder(place)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UsageError(
            f"{place} cannot be written: {error.strerror or error}; {advice}"
        ) from None


def create_exclusive(target: Location, data: bytes) -> bool:
    """Write a whole file unless one of that name exists; True if this call created it.

    Of several processes that try at once exactly one gets True; at a URL only while the others
    respect the lease.
    """
    if isinstance(target, RemotePath):
        if target.exists():
            return False
        target.put(data)
        return True
    with temporary_beside(target) as (file, temporary):
        file.write(data)
    try:
        try:
            # a hard link, unlike a rename, fails where the name is taken
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError:
            # a file system without hard links
            if target.exists():
                return False
            temporary.replace(target)
        sync_folder(target.parent)
        return True
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_temporaries(target: Location) -> None:
    """Delete what interrupted writers of `target` left behind."""
    if isinstance(target, RemotePath):
        return
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with suppress(OSError):
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(folder: Location) -> Iterator[None]:
    """Serialise commits into a folder between processes; released by the system if one dies.

    Held for a few renames only. On file systems without locks it does nothing: units are then
    still whole, as every rename is atomic. At a URL the run's lease has to do.
    """
    if isinstance(folder, RemotePath):
        yield
        return
    with (folder / ".lock").open("ab") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


@contextmanager
def alone_in(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder, as long as this one works in it.

    Released by the system if the process dies. On file systems without locks it does nothing.

    Raises UsageError: another process is working there, and still is after `patience_s`.
    """
    with (folder / ".lock").open("ab") as file:
        deadline = time.monotonic() + patience_s
        while not _lock(file):
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"another process is working in {folder}: wait for it, or choose another folder"
                )
            time.sleep(0.2)
        yield


def _lock(file: IO[bytes]) -> bool:
    """Whether the file is locked now, or cannot be; False: by somebody else."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write((json.dumps(content, indent=indent) + "\n").encode())
