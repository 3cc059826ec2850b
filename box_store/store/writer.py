"""Unit -> Parquet files, exactly once.

The boxes file is written under a temporary name, flushed, renamed; then the images file likewise.
The images file is the commit record and carries the hash of the boxes file, so a unit exists when
both do and belong together. A process killed at any moment leaves at most hidden temporary files or
a boxes file without its record, and the next writer of that unit replaces both.
"""

import errno
import hashlib
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from box_store.boxes import Boxes
from box_store.categories import Categories
from box_store.errors import StoreError
from box_store.places import files
from box_store.places.image_files import stored_name
from box_store.places.locations import Location, RemoteError
from box_store.store import schema
from box_store.store.parts import is_committed, part_path
from box_store.store.records import ImageRow, TeacherRecord


def write_unit(
    root: Location,
    record: TeacherRecord,
    categories: Categories,
    unit: int,
    rows: Sequence[ImageRow],
    *,
    replace: bool = False,
) -> bool:
    """Commit one unit; False if it was committed already, by whomever (then nothing is written).

    With `replace` a committed unit gives way, but not before the new one is on the disk.
    Raises StoreError for rows that are not the unit's images, for unknown category ids, and when
    the disk cannot take the files; what was committed before stays as it is.
    """
    tables = unit_tables(record, categories, unit, rows)
    boxes_path = part_path(root, "boxes", record.name, unit)
    images_path = part_path(root, "images", record.name, unit)
    temporaries: list[Path | files.Upload] = []
    try:
        files.make_folder(boxes_path.parent)
        files.make_folder(images_path.parent)
        boxes_data = _encode("boxes", tables["boxes"], record, unit)
        digest = hashlib.sha256(boxes_data).hexdigest()
        images_data = _encode("images", tables["images"], record, unit, boxes_sha256=digest)
        # both are on disk before either gets its name: a full disk changes nothing visible
        for path, data in ((boxes_path, boxes_data), (images_path, images_data)):
            temporaries.append(files.write_temporary(path, data))
        # another process may commit the same unit: whole pairs only, the first one stays
        with files.locked(images_path.parent):
            if is_committed(root, record.name, unit) and not replace:
                return False
            # an older record must not vouch for the new boxes, not for a moment
            images_path.unlink(missing_ok=True)
            files.move_into_place(temporaries[0], boxes_path)
            files.move_into_place(temporaries[1], images_path)
            files.remove_temporaries(boxes_path)
            files.remove_temporaries(images_path)
        return True
    except OSError as error:
        raise _unwritten(root, record, unit, error) from error
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def unit_tables(
    record: TeacherRecord, categories: Categories, unit: int, rows: Sequence[ImageRow]
) -> dict[str, pa.Table]:
    """The boxes and images tables of a unit, checked, rounded and sorted."""
    expected = len(record.unit_range(unit))
    if len(rows) != expected:
        raise StoreError(
            f"unit {unit} of teacher {record.name} has {expected} images, got {len(rows)} rows"
        )
    ordered = sorted(rows, key=lambda row: row.key)
    twice = [a.image_id for a, b in itertools.pairwise(ordered) if a.key == b.key]
    if twice:
        raise StoreError(f"unit {unit} of teacher {record.name}: image {twice[0]} occurs twice")
    kept = _storable([row.boxes for row in ordered])
    if kept.counts.size and kept.counts.max() > schema.MAX_BOXES_PER_IMAGE:
        worst = ordered[int(kept.counts.argmax())].image_id
        raise StoreError(
            f"image {worst} has {kept.counts.max()} boxes of teacher {record.name}; a store holds "
            f"up to {schema.MAX_BOXES_PER_IMAGE} an image: set top_k"
        )
    unknown = categories.unknown(kept.category_ids)
    if unknown:
        raise StoreError(
            f"unit {unit} of teacher {record.name} has boxes of the unknown category ids "
            f"{unknown[:5]}; {categories.describe_ids()}"
        )
    starts = np.cumsum(kept.counts) - kept.counts
    splits = _splits([row.split for row in ordered])
    columns: dict[str, Any] = {
        "image_id": np.repeat(np.array([row.image_id for row in ordered], np.int64), kept.counts),
        "category_id": kept.category_ids,
        "score": kept.scores,
        "x1": kept.boxes_xyxy[:, 0],
        "y1": kept.boxes_xyxy[:, 1],
        "x2": kept.boxes_xyxy[:, 2],
        "y2": kept.boxes_xyxy[:, 3],
        "rank": (np.arange(len(kept.scores)) - np.repeat(starts, kept.counts)).astype(np.int16),
        "split": splits.take(pa.array(np.repeat(np.arange(len(ordered)), kept.counts))),
    }
    images: dict[str, Any] = {
        "image_id": [row.image_id for row in ordered],
        "file_name": [stored_name(row.file_name) for row in ordered],
        "width": [row.width for row in ordered],
        "height": [row.height for row in ordered],
        "n_boxes": kept.counts,
        "status": [row.status for row in ordered],
        "error": [stored_name(row.error) for row in ordered],
        "seconds": [row.seconds for row in ordered],
        "split": splits,
    }
    return {
        "boxes": _table(columns, schema.BOXES),
        "images": _table(images, schema.IMAGES),
    }


def _splits(names: Sequence[str]) -> pa.Array:
    kind = schema.IMAGES.field("split").type
    texts = pa.array([stored_name(name) for name in names], pa.string())
    return texts.dictionary_encode().cast(kind)


def _table(columns: dict[str, Any], of: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, type=of.field(name).type)
        for name, column in ((name, columns[name]) for name in of.names)
    ]
    return pa.Table.from_arrays(arrays, schema=of)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The boxes of a unit's images one after the other: counts int64 [M] by image, the others [N]
    and [N, 4]."""

    counts: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    category_ids: NDArray[np.int32]


def _storable(images: Sequence[Boxes | None]) -> _Rows:
    """Best first, rounded to what the format keeps, cut to the image; no box without area.

    All images at once: image by image it takes several times as long.
    """
    some = [Boxes.empty(1, 1) if boxes is None else boxes for boxes in images]
    owners = np.repeat(np.arange(len(some)), [len(boxes) for boxes in some])
    sizes = np.array([(boxes.width, boxes.height) for boxes in some], np.float32).reshape(-1, 2)
    limits = np.tile(sizes, 2)[owners]
    xyxy = np.concatenate([np.zeros((0, 4), np.float32), *(boxes.boxes_xyxy for boxes in some)])
    scores = np.concatenate([np.zeros(0, np.float32), *(boxes.scores for boxes in some)])
    ids = np.concatenate([np.zeros(0, np.int32), *(boxes.class_ids for boxes in some)])
    cut = np.clip(xyxy, 0, limits)
    # equal scores keep their order, and so do those that rounding makes equal
    order = np.lexsort((-scores, owners))
    order = order[_has_area(cut[order])]
    rounded = np.clip(_rounded(cut[order], schema.COORDINATE_STEPS), 0, limits[order])
    left = _has_area(rounded)
    order, rounded = order[left], rounded[left]
    return _Rows(
        np.bincount(owners[order], minlength=len(some)).astype(np.int64),
        rounded,
        _rounded(scores[order], schema.SCORE_STEPS),
        ids[order],
    )


def _has_area(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.bool_]:
    return (boxes_xyxy[:, 2] > boxes_xyxy[:, 0]) & (boxes_xyxy[:, 3] > boxes_xyxy[:, 1])


def _rounded(values: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """To the nearest multiple of 1 / steps; exact in float32, as `steps` is a power of two."""
    return np.round(values * np.float32(steps)) / np.float32(steps)


def _encode(
    kind: str, table: pa.Table, record: TeacherRecord, unit: int, boxes_sha256: str = ""
) -> bytes:
    footer = schema.Footer(kind, record.name, record.fingerprint, unit, boxes_sha256)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(footer.to_metadata()),
        sink,
        **schema.PARQUET_OPTIONS[kind],
    )
    return sink.getvalue().to_pybytes()


def _unwritten(root: Location, record: TeacherRecord, unit: int, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    try:
        done = sum(is_committed(root, record.name, other) for other in range(record.n_units))
        intact = f"The {done} units"
    except RemoteError:
        intact = "All units"
    remedy = "Free some space" if full else "Put that right"
    return StoreError(
        f"{'the disk is full' if full else 'the store cannot be written'}: unit {unit} of teacher "
        f"{record.name} is not stored ({reason}; {root}). {intact} committed before are "
        f"intact. {remedy} and run the same command again: it goes on with this unit."
    )
