"""Every touch of the disk that must survive a crash: atomic files, exclusive files, a short lock.

The supported location of a store is a local path (or a mounted file system that renames
atomically). All writing goes through the functions below, so that another kind of location needs
another version of this module and nothing else.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from box_store.errors import UsageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: units are still atomic, only not serialised
    fcntl = None  # type: ignore[assignment]


# Path turns s3://bucket into s3:/bucket; a single letter is a Windows drive
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path: Path) -> Path:
    """`path`, absolute: workers may run in other folders. Raises UsageError for a URL."""
    if _URL.match(str(path)):
        raise UsageError(
            f"{path} is a URL: a box store lies on a local path. Mount or copy it there first"
        )
    return Path(path).absolute()


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and make their names durable."""
    missing: list[Path] = []
    folder = path
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable. Silently nothing where the platform cannot."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # pragma: no cover - Windows opens no folders
        return
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def temporary_beside(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file, and its path, beside `target` under a unique hidden name; durable afterwards.

    Leaves nothing behind when the block fails; an OSError passes through.
    """
    # never ends in .parquet or .json: whoever globs for those cannot see it
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file, temporary
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_temporary(target: Path, data: bytes) -> Path:
    """Write `data` durably beside `target`; returns the temporary file."""
    with temporary_beside(target) as (file, temporary):
        file.write(data)
    return temporary


def move_into_place(temporary: Path, target: Path) -> None:
    """Give a finished temporary file its name, atomically and durably."""
    temporary.replace(target)
    sync_folder(target.parent)


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that becomes `target`, as a whole, when the block ends without an error."""
    with temporary_beside(target) as (file, temporary):
        yield file
    try:
        move_into_place(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def create_exclusive(target: Path, data: bytes) -> bool:
    """Write a whole file unless one of that name exists; True if this call created it.

    Of several processes that try at once exactly one gets True.
    """
    temporary = write_temporary(target, data)
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


def remove_temporaries(target: Path) -> None:
    """Delete what interrupted writers of `target` left behind."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with suppress(OSError):
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Serialise commits into a folder between processes; released by the system if one dies.

    Held for a few renames only. On file systems without locks it does nothing: units are then
    still whole, as every rename is atomic.
    """
    with (folder / ".lock").open("ab") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield
