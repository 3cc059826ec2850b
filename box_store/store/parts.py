"""One file of a store: where it lies, and its rows once it is known to be what its place says."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from box_store.errors import FormatError
from box_store.places.locations import Location, RemoteError, RemotePath, staged
from box_store.store import schema
from box_store.store.records import TeacherRecord

_REMEDY = "delete it and run the same teacher again: only that unit is redone"


def read_footer(path: Location) -> schema.Footer:
    """The metadata of one file of a store, without its rows. Raises FormatError."""
    return _footer(_metadata(path), path)


def read_part(
    path: Location, kind: str, record: TeacherRecord, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of one file, checked to be of that kind and that teacher's configuration.

    Raises FormatError, naming the file and the remedy, for a truncated, foreign or newer file.
    """
    metadata = _metadata(path)
    check_footer(_footer(metadata, path), path, kind, record)
    wanted = schema.SCHEMAS[kind]
    absent = [name for name in wanted.names if name not in metadata.schema.names]
    if lacking := [name for name in absent if name not in schema.OPTIONAL]:
        raise FormatError(f"{path} lacks the columns {lacking}; {_REMEDY}")
    names = list(columns or wanted.names)
    try:
        table = pq.ParquetFile(staged(path)).read(columns=[n for n in names if n not in absent])
        for name in absent:
            if name in names:
                table = table.append_column(name, _unknown(table.num_rows))
        return table.cast(pa.schema([wanted.field(name) for name in table.column_names]))
    except RemoteError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _unknown(n_rows: int) -> pa.Array:
    """A column of empty texts."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, np.int16)), pa.array([""]))


def check_footer(footer: schema.Footer, path: Location, kind: str, record: TeacherRecord) -> None:
    """Raise FormatError unless the file is what its place in the store says."""
    if footer.kind != kind or footer.teacher != record.name:
        raise FormatError(
            f"{path} holds {footer.kind} of teacher {footer.teacher}, expected {kind} of "
            f"{record.name}; {_REMEDY}"
        )
    if footer.fingerprint != record.fingerprint:
        raise FormatError(
            f"{path} was made by another configuration (fingerprint {footer.fingerprint[:12]}, "
            f"teachers/{record.name}.json has {record.fingerprint[:12]}); {_REMEDY}"
        )


def _metadata(path: Location) -> pq.FileMetaData:
    try:
        return pq.read_metadata(staged(path))
    except RemoteError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _footer(metadata: pq.FileMetaData, path: Location) -> schema.Footer:
    return schema.Footer.from_metadata(metadata.metadata, str(path))


def _damaged(path: Location, error: Exception) -> FormatError:
    return FormatError(f"{path} is truncated or no Parquet file ({error}); {_REMEDY}")


_P = TypeVar("_P", Path, RemotePath, Location)


def part_path(root: _P, kind: str, teacher: str, unit: int) -> _P:
    """The file of a unit; `kind` is `boxes` or `images`."""
    return root / kind / f"teacher={teacher}" / f"part-{unit:05d}.parquet"


def unit_of(path: Location) -> int | None:
    """The unit a file name stands for, None for any other file."""
    stem = path.name.removeprefix("part-").removesuffix(".parquet")
    return int(stem) if stem.isdigit() and path.name == f"part-{int(stem):05d}.parquet" else None


def is_committed(root: Location, teacher: str, unit: int) -> bool:
    """Whether both files of the unit have their names."""
    return (
        part_path(root, "images", teacher, unit).exists()
        and part_path(root, "boxes", teacher, unit).exists()
    )
