"""Files of this machine that survive a crash: written beside their name, flushed, renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: units are still atomic, only not serialised
    fcntl = None  # type: ignore[assignment]


def make_local_folder(path: Path) -> None:
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


def rename(temporary: Path, target: Path) -> None:
    """Give a finished temporary file its name, atomically and durably."""
    temporary.replace(target)
    sync_folder(target.parent)


@contextmanager
def replacing_local(target: Path) -> Iterator[BinaryIO]:
    """A file that becomes `target`, as a whole, when the block ends without an error."""
    with temporary_beside(target) as (file, temporary):
        yield file
    try:
        rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
