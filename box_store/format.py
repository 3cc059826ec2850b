"""The version of a store's files, and the key under which they say it."""

from typing import Any

from box_store.errors import FormatError

# 1: an image is its id. 2: it is its split and its id, so that splits which number their images
# alike can share a store; files of 1 name no split
FORMAT_MAJOR = 2


FORMAT_MINOR = 0


FORMAT_VERSION = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"


METADATA_KEY = b"teach_detr"


def check_version(version: Any, where: str) -> None:
    """Raise FormatError unless this program understands format `version` of the file `where`."""
    major = str(version).partition(".")[0]
    if not major.isdigit():
        raise FormatError(f"{where} has no readable format version (got {version!r})")
    if int(major) > FORMAT_MAJOR:
        raise FormatError(
            f"{where} has the format version {version}, this program reads up to "
            f"{FORMAT_MAJOR}.x: install a newer teach-detr"
        )
