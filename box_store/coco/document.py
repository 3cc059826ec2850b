"""A whole JSON file, in any of the encodings that JSON allows, packed by gzip or not."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from box_store.errors import DataError
from box_store.places.locations import Location, RemoteError, staged

_GZIP = b"\x1f\x8b"


def read_document(
    path: Location, what: str = "file", hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """The content of a JSON file; `what` says in messages what it should be. hook: of every object.

    Raises DataError: there is no such file, it cannot be read, or it is no JSON.
    """
    return parse_document(read_bytes(path, what), path, hook)


def read_bytes(path: Location, what: str = "file") -> bytes:
    """The file, unpacked. Raises DataError."""
    try:
        raw = staged(path).read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except FileNotFoundError as error:
        near = path.parent
        where = (
            f"the folder {near} exists" if near.is_dir() else f"the folder {near} is missing too"
        )
        raise DataError(f"no {what} at {path} ({where})") from error
    except RemoteError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is packed by gzip and damaged: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"no {what} can be called {str(path)!r}: {error}") from error


def parse_document(
    raw: bytes, path: Location, hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """JSON from bytes: UTF-8, UTF-16 or UTF-32, with or without a mark. Raises DataError."""
    if not raw.strip():
        raise DataError(f"{path} is not valid JSON: the file is empty")
    try:
        return json.loads(raw, object_hook=hook)
    except RecursionError as error:
        raise DataError(f"{path} is not valid JSON: nested too deep") from error
    except ValueError as error:
        # also a number of thousands of digits, and bytes that are no text
        raise DataError(f"{path} is not valid JSON: {error}") from error
