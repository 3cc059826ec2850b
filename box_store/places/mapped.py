"""Arrow IPC files that many processes map: rows of images with lists of boxes, and a document that
says what the file is.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.format import FORMAT_VERSION, METADATA_KEY

_SIDES = pa.list_(pa.float32(), 4)
# what every row begins with
IMAGE_FIELDS = tuple(
    pa.field(name, kind, nullable=False)
    for name, kind in (("image_id", pa.int64()), ("width", pa.int32()), ("height", pa.int32()))
)


def list_field(name: str, kind: pa.DataType | None = None) -> pa.Field:
    """A column with a list a row: of values, or (kind=None) of boxes."""
    return pa.field(name, pa.large_list(_SIDES if kind is None else kind), nullable=False)


def lists(offsets: NDArray[np.int64], values: NDArray[Any]) -> pa.LargeListArray:
    """Values [N] or boxes [N, 4], float32, of which row i has offsets[i]:offsets[i + 1]."""
    if values.ndim == 2:
        flat = pa.array(values.reshape(-1), pa.float32())
        return pa.LargeListArray.from_arrays(
            pa.array(offsets, pa.int64()), pa.FixedSizeListArray.from_arrays(flat, type=_SIDES)
        )
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))


def boxes_of(column: pa.LargeListArray) -> NDArray[np.float32]:
    """All boxes of a column of `lists`, float32 [N, 4], mapped."""
    return column.values.values.to_numpy().reshape(-1, 4)


def with_document(schema: pa.Schema, kind: str, metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema of a file of that kind, with what is stored beside its rows."""
    document = {"kind": kind, "format_version": FORMAT_VERSION} | dict(metadata)
    return schema.with_metadata({METADATA_KEY: json.dumps(document).encode()})


def document_of(schema: pa.Schema, kind: str) -> dict[str, Any] | None:
    """What is stored beside the rows of a file of that kind; None for any other file."""
    try:
        document = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:
        return None
    return document if document.get("kind") == kind else None
