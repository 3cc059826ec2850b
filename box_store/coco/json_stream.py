"""JSON arrays entry by entry: a 10 GB results file needs some megabytes of memory."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from box_store.errors import DataError
from box_store.places.text import open_text

_CHUNK = 1 << 20
# characters that one entry may have: a detection has about 100, one with a polygon some thousands
_LONGEST_ENTRY = 1 << 26
_BLANK = " \t\n\r"


def write_array(file: BinaryIO, entries: Iterable[Any]) -> int:
    """Write a JSON array with an entry a line; returns the number of entries."""
    file.write(b"[")
    count = 0
    for entry in entries:
        file.write(("\n" if count == 0 else ",\n").encode() + json.dumps(entry).encode())
        count += 1
    file.write(b"\n]")
    return count


def iter_array(path: Path, what: str) -> Iterator[Any]:
    """The entries of the JSON array in `path`; `what` says in messages what the file should be.

    Memory: about the longest entry and some megabytes. Raises DataError for a missing file, for
    anything but an array, and for one that is cut off.
    """
    try:
        with open_text(Path(path)) as file:
            yield from _Reader(file.read, path, what).entries()
    except FileNotFoundError as error:
        raise DataError(f"no {what} at {path}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no {what}: it is not UTF-8 text, nor UTF-16 or UTF-32 ({error.reason})"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is packed by gzip and damaged: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


class _Reader:
    """A window that slides over the text; `position` is where the next token begins in it."""

    def __init__(self, read: Any, path: Path, what: str) -> None:
        self._read = read
        self._path = path
        self._what = what
        self._window = ""
        self._position = 0
        self._count = 0

    def entries(self) -> Iterator[Any]:
        first = self._next_character()
        if first != "[":
            hint = self._looks_like() if first == "{" else ""
            raise DataError(
                f"{self._path} is no {self._what}: expected a JSON array, got "
                f"{f'a text that begins with {first!r}' if first else 'an empty file'}.{hint}"
            )
        self._position += 1
        if self._next_character() == "]":
            self._position += 1
        else:
            while True:
                yield self._entry()
                self._count += 1
                separator = self._next_character()
                self._position += 1
                if separator == "]":
                    break
                if separator == "," and self._next_character() == "]":
                    raise DataError(
                        f"{self._path} is no valid {self._what} behind entry {self._count}: "
                        "expected a whole entry, got ']': a comma stands before it"
                    )
                if separator != ",":
                    raise self._broken("expected ',' or ']'", separator)
        if self._next_character():
            raise self._broken("expected the end of the file", self._next_character())

    def _looks_like(self) -> str:
        """What an object at the start seems to be of; begins with a space."""
        head = self._window[self._position :][:_CHUNK]
        if '"images"' in head or '"annotations"' in head or '"categories"' in head:
            return " This looks like an annotation file."
        try:
            _, end = json.JSONDecoder().raw_decode(head)
        except (ValueError, RecursionError):
            end = 0
        rest = head[end:].lstrip()
        if end and rest.startswith("{"):
            return " These are objects line by line: put [ before, ] behind and , between them."
        return " The array has to be the whole file, not a value in an object."

    def _entry(self) -> Any:
        decoder = json.JSONDecoder()
        self._next_character()
        wanted = 2 * _CHUNK
        while True:
            try:
                value, end = decoder.raw_decode(self._window, self._position)
            except (ValueError, RecursionError) as error:
                # cut off by the window, or really wrong: more text decides
                if self._extend(wanted):
                    wanted *= 2
                    continue
                raise self._broken("expected a whole entry", error) from error
            # a number cut by the window ("1", "1." or "1e-" of 1e-5) still parses, as another one
            if end + 2 >= len(self._window) and self._extend(_CHUNK):
                continue
            self._position = end
            return value

    def _next_character(self) -> str:
        while True:
            while self._position < len(self._window):
                if self._window[self._position] not in _BLANK:
                    return self._window[self._position]
                self._position += 1
            if not self._extend(_CHUNK):
                return ""

    def _extend(self, wanted: int) -> bool:
        """Drop what is behind and read more; False, changing nothing, at the end of the file."""
        rest = self._window[self._position :]
        if len(rest) > _LONGEST_ENTRY:
            raise self._broken(f"an entry has up to {_LONGEST_ENTRY} characters", "more")
        more = self._read(wanted)
        if more:
            self._window, self._position = rest + more, 0
        return bool(more)

    def _broken(self, expected: str, got: object) -> DataError:
        reason = f"{expected}, got {got!r}" if isinstance(got, str) and got else f"{expected}"
        if got == "" or not self._read(1):
            reason += "; the file seems cut off"
        return DataError(
            f"{self._path} is no valid {self._what} behind entry {self._count}: {reason}"
        )
