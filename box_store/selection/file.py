"""The file a trainer reads: Arrow IPC, one record batch a teacher, one row an image, memory-mapped.

Every loader worker maps the same pages; a lookup is a binary search and a few slices. Needs pyarrow
and numpy only.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.coco.annotations import ImageInfo
from box_store.errors import FormatError, StoreError, UnknownTeacher, nearest
from box_store.format import check_version
from box_store.places import files
from box_store.places.locations import Location, RemoteError, location, staged
from box_store.places.mapped import (
    IMAGE_FIELDS,
    boxes_of,
    document_of,
    list_field,
    lists,
    with_document,
)

_KIND = "selection"
_SCHEMA = pa.schema(
    [
        *IMAGE_FIELDS,
        list_field("boxes_xyxy"),
        list_field("scores", pa.float32()),
        list_field("category_ids", pa.int32()),
        # null: not known; files of earlier versions lack the column
        pa.field("file_name", pa.string(), nullable=True),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherBoxes:
    """All boxes of one teacher, grouped by the images it saw successfully.

    image_ids: int64 [M], ascending. widths, heights: int32 [M], pixels. offsets: int64 [M + 1].
    Image i has the rows offsets[i]:offsets[i + 1], best first, of boxes_xyxy (float32 [N, 4],
    pixels), scores (float32 [N]) and category_ids (int32 [N]).
    """

    image_ids: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    offsets: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    category_ids: NDArray[np.int32]

    def get(self, image_id: int) -> Boxes | None:
        """Copies of one image's rows, or None where the teacher did not see it."""
        row = int(self.image_ids.searchsorted(image_id))
        if row == len(self.image_ids) or self.image_ids[row] != image_id:
            return None
        span = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        # copies: the mapped pages are read-only, which torch.from_numpy warns about
        return Boxes.unchecked(
            self.boxes_xyxy[span].copy(),
            self.scores[span].copy(),
            self.category_ids[span].copy(),
            int(self.widths[row]),
            int(self.heights[row]),
        )


def joined(parts: Sequence[TeacherBoxes]) -> TeacherBoxes:
    """One set of the images of several, by ascending id."""
    image_ids = np.concatenate([np.zeros(0, np.int64), *(part.image_ids for part in parts)])
    counts = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in parts)])
    widths = np.concatenate([np.zeros(0, np.int32), *(part.widths for part in parts)])
    heights = np.concatenate([np.zeros(0, np.int32), *(part.heights for part in parts)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes_xyxy for part in parts)])
    scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)])
    ids = np.concatenate([np.zeros(0, np.int32), *(part.category_ids for part in parts)])
    offsets = offsets_of(counts)
    if (np.diff(image_ids) > 0).all():
        return TeacherBoxes(image_ids, widths, heights, offsets, boxes, scores, ids)
    # units need not follow one another by id: move each image's rows to their place
    order = np.argsort(image_ids, kind="stable")
    moved = offsets_of(counts[order])
    rows = np.arange(len(scores)) + np.repeat(offsets[:-1][order] - moved[:-1], counts[order])
    return TeacherBoxes(
        image_ids[order], widths[order], heights[order], moved, boxes[rows], scores[rows], ids[rows]
    )


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`offsets` of images with so many rows each."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


class Selection:
    """An opened selection. Pickles as its path: a worker maps the file anew.

    `teachers` are the box sets in it (`("fused",)` for a fusion), `metadata` says what made it.
    """

    def __init__(self, path: Location) -> None:
        place = location(path)
        try:
            self.path = staged(place)
            with pa.memory_map(str(self.path)) as source:
                reader = pa.ipc.open_file(source)
                self.metadata = _read_metadata(reader.schema, self.path)
                self.teachers: tuple[str, ...] = tuple(self.metadata["teachers"])
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except FileNotFoundError as error:
            raise StoreError(
                f"no selection at {place}: make one with `teach-detr select`"
            ) from error
        except RemoteError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise FormatError(
                f"{place} is truncated or no selection ({error}); delete it, it is made anew"
            ) from error
        if len(batches) != len(self.teachers):
            raise FormatError(f"{self.path} is incomplete; delete it, it is made anew")
        self._batches = dict(zip(self.teachers, batches, strict=True))
        self._boxes = {name: _from_batch(batch) for name, batch in self._batches.items()}

    @classmethod
    def open(cls, path: Location) -> "Selection":
        """Map a selection file. Raises StoreError (no such file) or FormatError."""
        return cls(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Selection, (self.path,))

    def __repr__(self) -> str:
        return f"Selection({str(self.path)!r}, teachers={self.teachers})"

    def of(self, teacher: str) -> TeacherBoxes:
        """All boxes of one of `teachers`. Raises UnknownTeacher."""
        if teacher not in self._boxes:
            raise UnknownTeacher(
                f"the selection {self.path} has no teacher {teacher!r}, it has "
                f"{', '.join(self.teachers)}.{nearest(teacher, self.teachers)}"
            )
        return self._boxes[teacher]

    def boxes(self, teacher: str, image_id: int) -> Boxes | None:
        """What a teacher saw in an image, best first, `class_ids` being category ids.

        None: it never, or not successfully, saw the image. No rows: it saw nothing in it.
        """
        return self.of(teacher).get(image_id)

    def images(self, teacher: str) -> Iterator[ImageInfo]:
        """The images that a teacher saw; an unknown file name is empty. Raises UnknownTeacher."""
        rows, batch = self.of(teacher), self._batches[teacher]
        named = "file_name" in batch.schema.names
        names = batch.column("file_name").to_pylist() if named else [None] * len(rows.image_ids)
        columns = (rows.image_ids.tolist(), rows.widths.tolist(), rows.heights.tolist())
        for image_id, width, height, name in zip(*columns, names, strict=True):
            yield ImageInfo(image_id, name or "", width, height)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Images covered and boxes, by teacher."""
        return {
            name: (len(boxes.image_ids), len(boxes.scores)) for name, boxes in self._boxes.items()
        }


def content_key(boxes: Mapping[str, TeacherBoxes]) -> str:
    """Hash of box sets, for selections that nothing else identifies."""
    digest = hashlib.sha256()
    for name, rows in boxes.items():
        digest.update(f"{name} {len(rows.image_ids)} {len(rows.scores)}\n".encode())
        for column in fields(rows):
            digest.update(np.ascontiguousarray(getattr(rows, column.name)).data)
    return digest.hexdigest()


def write_selection(
    path: Location,
    metadata: Mapping[str, Any],
    boxes: Iterable[tuple[str, TeacherBoxes]],
    file_names: Mapping[int, str] | None = None,
) -> None:
    """Write a selection as a whole or not at all.

    `metadata["teachers"]` names the box sets in the order in which `boxes` yields them; they are
    written one by one, so only one needs to be in memory. `file_names` says which file an image id
    stands for. Raises StoreError.
    """
    with_metadata = with_document(_SCHEMA, _KIND, metadata)
    try:
        files.make_folder(path.parent)
        with (
            files.replacing(path) as file,
            pa.ipc.new_file(file, with_metadata) as writer,
        ):
            for _, rows in boxes:
                writer.write_batch(_to_batch(rows, file_names or {}, with_metadata))
    except OSError as error:
        raise StoreError(
            f"cannot write the selection {path}: {error.strerror or error}. The store is "
            "unchanged; free some space there or choose another place for it"
        ) from error


def _to_batch(rows: TeacherBoxes, file_names: Mapping[int, str], of: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array(rows.image_ids, pa.int64()),
            pa.array(rows.widths, pa.int32()),
            pa.array(rows.heights, pa.int32()),
            lists(rows.offsets, rows.boxes_xyxy),
            lists(rows.offsets, rows.scores),
            lists(rows.offsets, rows.category_ids),
            pa.array([file_names.get(key) for key in rows.image_ids.tolist()], pa.string()),
        ],
        schema=of,
    )


def _from_batch(batch: pa.RecordBatch) -> TeacherBoxes:
    boxes = batch.column("boxes_xyxy")
    return TeacherBoxes(
        batch.column("image_id").to_numpy(),
        batch.column("width").to_numpy(),
        batch.column("height").to_numpy(),
        boxes.offsets.to_numpy() if len(boxes) else np.zeros(1, np.int64),
        boxes_of(boxes),
        batch.column("scores").values.to_numpy(),
        batch.column("category_ids").values.to_numpy(),
    )


def _read_metadata(of: pa.Schema, path: Path) -> dict[str, Any]:
    document = document_of(of, _KIND)
    if document is None:
        raise FormatError(
            f"{path} is an Arrow file but no selection; make one with `teach-detr select`"
        )
    check_version(document.get("format_version"), str(path))
    return document
