"""Text files line by line, whatever their encoding."""

import codecs
import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from box_store.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str:
    """UTF-8, unless the first bytes are a mark, or zeros stand as UTF-16 and UTF-32 have them
    before the first characters of JSON (RFC 4627, section 3).
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    zeros = tuple(byte == 0 for byte in head[:4])
    if len(zeros) == 4:
        return {
            (True, True, True, False): "utf-32-be",
            (False, True, True, True): "utf-32-le",
            (True, False, True, False): "utf-16-be",
            (False, True, False, True): "utf-16-le",
        }.get(zeros, "utf-8")
    return "utf-8"


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """A text file of any of these encodings, packed by gzip or not.

    Raises OSError; reading raises UnicodeDecodeError, and EOFError or zlib.error for damage.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.open(raw) if packed else nullcontext(raw) as file:
            head = file.read(4)
            file.seek(0)
            with io.TextIOWrapper(file, encoding=encoding_of(head), newline="") as text:
                yield text


def number(text: str | None) -> float | None:
    """A finite number as text has it; None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def table_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, with their line. Raises DataError."""
    reader = csv.reader(lines_of(path), delimiter=delimiter)
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}") from error


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file. Raises DataError if it cannot be read, or is no text."""
    try:
        with open_text(path) as file:
            yield from file
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is packed by gzip and damaged: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text in {error.encoding}: {error.reason}; save it as UTF-8"
        ) from error
