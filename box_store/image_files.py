"""Where an image of the data set lies, without ever leaving the data set's folder."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from box_store.errors import DataError


def image_path(root: Path, file_name: str) -> Path:
    """`root/file_name`, resolved; whether the file exists is not looked at.

    Raises DataError for a name that would leave `root`: an absolute path, `..`, or a symbolic link
    that points outside (the folder `root` itself may be a link).
    """
    absolute = PurePosixPath(file_name).is_absolute() or PureWindowsPath(file_name).is_absolute()
    if not file_name or "\0" in file_name or absolute:
        raise DataError(f"the image name {file_name!r} is not a path below the image folder {root}")
    if ".." in PurePosixPath(file_name).parts or ".." in PureWindowsPath(file_name).parts:
        raise DataError(f"the image name {file_name!r} leaves the image folder {root}")
    base = Path(root).resolve()
    path = (base / file_name).resolve()
    if not path.is_relative_to(base):
        raise DataError(f"the image {file_name!r} is a link to {path}, outside the folder {base}")
    return path
