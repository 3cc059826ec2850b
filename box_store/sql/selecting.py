"""Turning the rows of a query into the box sets of a selection."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.categories import Categories
from box_store.errors import DataError
from box_store.selection.file import TeacherBoxes

REQUIRED = ("image_id", "category_id", "score", "x1", "y1", "x2", "y2")
# the box set of a query that names no teacher
UNNAMED = "selected"


def covered_images(seen: pa.Table, rows: pa.Table, *, exact: bool) -> dict[str, NDArray[np.int64]]:
    """For every name in the `teacher` column of `rows`, the images that its boxes speak for.

    seen: image_id and maybe teacher. A name that `seen` does not have gets all its images and,
    unless `exact`, those that `rows` has of it.
    """
    codes = _teachers(rows)
    seen_codes = _teachers(seen)
    seen_ids = _integers(seen, "image_id", np.int64)
    row_ids = _integers(rows, "image_id", np.int64)
    covered: dict[str, NDArray[np.int64]] = {}
    # a query without any row still says of every teacher that nothing was selected
    for name in sorted(codes.names or seen_codes.names):
        own = seen_ids[seen_codes.rows_of(name)]
        ids = np.unique(own if len(own) else seen_ids)
        mentioned = row_ids[codes.rows_of(name)]
        if exact:
            outside = np.setdiff1d(mentioned, ids)
            if len(outside):
                raise DataError(
                    f"{name} has boxes in {len(outside)} images that the query for images does not "
                    f"yield, such as {outside[0]}"
                )
        covered[name] = np.union1d(ids, mentioned)
    return covered


def grouped_by_teacher(
    rows: pa.Table,
    covered: dict[str, NDArray[np.int64]],
    sizes: pa.Table,
    categories: Categories,
) -> dict[str, TeacherBoxes]:
    """The rows as box sets, best first in each image.

    sizes: image_id, width, height. Raises DataError, saying which row, for values that are no
    boxes: NULL, NaN, inverted, a score outside 0..1, an unknown category or image.
    """
    ids = _integers(rows, "category_id", np.int64)
    unknown = categories.unknown(ids)
    if unknown:
        raise DataError(
            f"the query yields the unknown category ids {unknown[:5]}; {categories.describe_ids()}"
        )
    scores = _floats(rows, "score")
    boxes = np.stack([_floats(rows, name) for name in ("x1", "y1", "x2", "y2")], axis=1)
    _check_rows(boxes, scores)
    image_ids = _integers(rows, "image_id", np.int64)
    size_ids = _integers(sizes, "image_id", np.int64)
    by_id = np.argsort(size_ids)
    size_ids = size_ids[by_id]
    widths = _integers(sizes, "width", np.int32)[by_id]
    heights = _integers(sizes, "height", np.int32)[by_id]
    teachers = _teachers(rows)
    found: dict[str, TeacherBoxes] = {}
    for name, images in covered.items():
        place = np.searchsorted(size_ids, images)
        known = place < len(size_ids)
        known[known] = size_ids[place[known]] == images[known]
        if not known.all():
            raise DataError(
                f"the store does not know the image {images[~known][0]} that the query yields"
            )
        own = np.flatnonzero(teachers.rows_of(name))
        position = np.searchsorted(images, image_ids[own])
        order = np.lexsort((-scores[own], position))
        own, position = own[order], position[order]
        offsets = np.zeros(len(images) + 1, np.int64)
        np.cumsum(np.bincount(position, minlength=len(images)), out=offsets[1:])
        found[name] = TeacherBoxes(
            images,
            widths[place],
            heights[place],
            offsets,
            boxes[own],
            scores[own],
            ids[own].astype(np.int32),
        )
    return found


def _check_rows(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    checks = (
        (np.isfinite(boxes).all(axis=1) & np.isfinite(scores), "NULL, NaN or infinite values"),
        ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]), "a box without area"),
        ((scores >= 0) & (scores <= 1), "a score outside 0..1"),
    )
    for good, what in checks:
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise DataError(
                f"row {row} of the query has {what}: score {scores[row]:g}, box "
                f"{', '.join(f'{value:g}' for value in boxes[row])}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Teachers:
    """The column `teacher`: its names, and for every row the position of its name."""

    names: list[str]
    codes: NDArray[np.int64]

    def rows_of(self, name: str) -> NDArray[np.bool_]:
        return self.codes == (self.names.index(name) if name in self.names else -1)


def _teachers(table: pa.Table) -> _Teachers:
    if "teacher" not in table.column_names:
        names = [UNNAMED] if table.num_rows else []
        return _Teachers(names, np.zeros(table.num_rows, np.int64))
    column = table["teacher"]
    if column.null_count or not (
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise DataError(
            f"the column teacher must hold names, got {column.type}"
            + (f" with {column.null_count} NULL" if column.null_count else "")
        )
    # one dictionary for all chunks
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    return _Teachers(
        encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64, copy=False)
    )


def _integers(table: pa.Table, name: str, of: Any) -> NDArray[Any]:
    column = table[name]
    if column.null_count or not pa.types.is_integer(column.type):
        raise DataError(
            f"the column {name} must hold whole numbers, got {column.type}"
            + (f" with {column.null_count} NULL" if column.null_count else "")
        )
    return column.to_numpy().astype(of)


def _floats(table: pa.Table, name: str) -> NDArray[np.float32]:
    try:
        return table[name].cast(pa.float32()).to_numpy().astype(np.float32)
    except pa.ArrowException as error:
        raise DataError(f"the column {name} must hold numbers, got {table[name].type}") from error
