"""Where an image of the data set lies, without ever leaving the data set's folder or URL."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import overload

from box_store.errors import DataError
from box_store.places.locations import Location, RemotePath


def stored_name(name: str) -> str:
    """A file name as text that UTF-8 can hold: what it cannot is written as an escape.

    Names in other bytes come from JSON as halves of surrogate pairs, which Parquet has no place
    for. Every file name in a store is written so, and compared so.
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


@overload
def image_path(root: Path, file_name: str) -> Path: ...
@overload
def image_path(root: RemotePath, file_name: str) -> RemotePath: ...
@overload
def image_path(root: Location, file_name: str) -> Location: ...
def image_path(root: Location, file_name: str) -> Location:
    """`root/file_name`, resolved; whether the file exists is not looked at.

    Raises DataError for a name that would leave `root`: an absolute path, `..`, or a symbolic link
    that points outside (the folder `root` itself may be a link).
    """
    absolute = PurePosixPath(file_name).is_absolute() or PureWindowsPath(file_name).is_absolute()
    if not file_name or "\0" in file_name or absolute:
        raise DataError(f"the image name {file_name!r} is not a path below the image folder {root}")
    if ".." in PurePosixPath(file_name).parts or ".." in PureWindowsPath(file_name).parts:
        raise DataError(f"the image name {file_name!r} leaves the image folder {root}")
    if isinstance(root, RemotePath):
        return root / file_name
    base = Path(root).resolve()
    try:
        path = (base / file_name).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        # half a surrogate pair, which no file system takes; links that go round in a circle
        raise DataError(f"no image can be called {file_name!a}: {error}") from error
    if not path.is_relative_to(base):
        raise DataError(f"the image {file_name!r} is a link to {path}, outside the folder {base}")
    return path


def same_name(one: str, other: str) -> bool:
    """Whether two paths can be those of one file: one of them ends as the other, part by part.

    The folder that they count from may differ. An empty name is not known, and contradicts nothing.
    """
    plain = (stored_name(path).replace("\\", "/") for path in (one, other))
    parts = [PurePosixPath(path).parts for path in plain]
    shorter = min(len(each) for each in parts)
    return shorter == 0 or parts[0][-shorter:] == parts[1][-shorter:]
