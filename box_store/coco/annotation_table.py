"""All images and annotations of a data set in a few flat arrays, in memory or mapped from a file.

A hundred thousand images with a million boxes are then a dozen objects: forked loader processes
share the pages instead of copying them bit by bit, and a mapped file is shared by everyone. The
file is Arrow IPC, one row an image. Needs pyarrow and numpy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.errors import FormatError
from box_store.format import FORMAT_VERSION
from box_store.places import files
from box_store.places.mapped import (
    IMAGE_FIELDS,
    boxes_of,
    document_of,
    list_field,
    lists,
    with_document,
)

_KIND = "annotations"
_SCHEMA = pa.schema(
    [
        *IMAGE_FIELDS,
        # not text: file systems allow names that are no UTF-8
        pa.field("file_name", pa.large_binary(), nullable=False),
        list_field("boxes_xywh"),
        list_field("category_ids", pa.int32()),
        list_field("iscrowd", pa.uint8()),
        list_field("areas", pa.float32()),
        pa.field("unlabelled", pa.uint8(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """M images in the order of their file, N annotations.

    image_ids: int64 [M]. widths, heights: int32 [M], pixels. Image i has the bytes
    name_offsets[i]:name_offsets[i + 1] of `names` (uint8), and the rows offsets[i]:offsets[i + 1]
    of boxes_xywh (float32 [N, 4], pixels), category_ids (int32 [N]), iscrowd (bool [N]) and areas
    (float32 [N], square pixels). unlabelled: bool [M], images that nobody has looked at: that they
    have no row says nothing, and the rows that they have are not all. path: the file that the
    arrays are mapped from.
    """

    image_ids: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    name_offsets: NDArray[np.int64]
    names: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    boxes_xywh: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    iscrowd: NDArray[np.bool_]
    areas: NDArray[np.float32]
    unlabelled: NDArray[np.bool_]
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __reduce__(self) -> tuple[Any, ...]:
        # another process maps the file anew
        if self.path is not None:
            return (open_table, (self.path,))
        return (AnnotationTable, tuple(getattr(self, field.name) for field in fields(self)))

    def file_name(self, index: int) -> str:
        """The name of image `index`, as the annotation file has it."""
        start, stop = self.name_offsets[index], self.name_offsets[index + 1]
        return self.names[start:stop].tobytes().decode("utf-8", "surrogatepass")

    def file_names(self) -> list[str]:
        """The names of all images."""
        names, ends = self.names.tobytes(), self.name_offsets.tolist()
        return [names[i:j].decode("utf-8", "surrogatepass") for i, j in pairwise(ends)]

    def rows(self, index: int) -> slice:
        """The annotations of image `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def take(self, which: NDArray[np.int64]) -> "AnnotationTable":
        """The images at those places, in memory."""
        counts = np.diff(self.offsets)[which]
        rows = np.concatenate(
            [np.arange(0), *(np.arange(*self.offsets[at : at + 2]) for at in which)]
        )
        name_offsets, names = pack_names([self.file_name(int(at)) for at in which])
        return AnnotationTable(
            self.image_ids[which],
            self.widths[which],
            self.heights[which],
            name_offsets,
            names,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.boxes_xywh[rows],
            self.category_ids[rows],
            self.iscrowd[rows],
            self.areas[rows],
            self.unlabelled[which],
        )

    def index_of(self, image_id: int) -> int | None:
        """Where an image stands in the file; None if it is not in it."""
        ids, order = self._sorted
        place = int(ids.searchsorted(image_id))
        if place == len(ids) or ids[place] != image_id:
            return None
        return int(order[place])

    def places_of(self, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where images stand in the file, all of which are in it."""
        ids, order = self._sorted
        return order[ids.searchsorted(image_ids)]

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.image_ids, kind="stable")
        return self.image_ids[order], order


def pack_names(names: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """`name_offsets` and `names` of a table."""
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return offsets, np.frombuffer(b"".join(encoded), np.uint8)


def write_table(path: Path, table: AnnotationTable, metadata: Mapping[str, Any]) -> None:
    """Write a table as a whole or not at all. Raises OSError."""
    with_metadata = with_document(_SCHEMA, _KIND, metadata)
    names = pa.Array.from_buffers(
        pa.large_binary(),
        len(table),
        [None, pa.py_buffer(table.name_offsets.tobytes()), pa.py_buffer(table.names.tobytes())],
    )
    columns = [
        pa.array(table.image_ids, pa.int64()),
        pa.array(table.widths, pa.int32()),
        pa.array(table.heights, pa.int32()),
        names,
        lists(table.offsets, table.boxes_xywh),
        lists(table.offsets, table.category_ids),
        lists(table.offsets, table.iscrowd.view(np.uint8)),
        lists(table.offsets, table.areas),
        pa.array(table.unlabelled.view(np.uint8), pa.uint8()),
    ]
    files.make_folder(path.parent)
    with files.replacing(path) as file, pa.ipc.new_file(file, with_metadata) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=with_metadata))


def open_table(path: Path) -> AnnotationTable:
    """Map a table that `write_table` wrote. Raises FormatError, FileNotFoundError."""
    return open_with_metadata(path)[0]


def open_with_metadata(path: Path) -> tuple[AnnotationTable, dict[str, Any]]:
    """The same with what was stored beside it."""
    path = Path(path).absolute()
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            document = document_of(reader.schema, _KIND) or {}
            batch = reader.get_batch(0)
            known = batch.schema.names == _SCHEMA.names
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        raise FormatError(f"{path} is no table of annotations ({error}); delete it") from error
    if document.get("format_version") != FORMAT_VERSION or not known:
        raise FormatError(f"{path} is no table of annotations of this version; delete it")
    names, boxes = batch.column("file_name"), batch.column("boxes_xywh")
    _, name_offsets, name_bytes = names.buffers()
    table = AnnotationTable(
        batch.column("image_id").to_numpy(),
        batch.column("width").to_numpy(),
        batch.column("height").to_numpy(),
        np.frombuffer(name_offsets, np.int64, len(names) + 1),
        np.frombuffer(name_bytes, np.uint8) if name_bytes else np.zeros(0, np.uint8),
        boxes.offsets.to_numpy(),
        boxes_of(boxes),
        batch.column("category_ids").values.to_numpy(),
        batch.column("iscrowd").values.to_numpy().view(np.bool_),
        batch.column("areas").values.to_numpy(),
        batch.column("unlabelled").to_numpy().view(np.bool_),
        path,
    )
    return table, document
