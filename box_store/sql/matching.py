"""The outcome of each box for SQL: the matching of `calibration.matching`, as a DuckDB function."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from box_store.calibration.matching import HIT, IGNORED, BoxRows, match

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CORNERS = ("x1", "y1", "x2", "y2")
_SIDES = ", ".join(f"{name} FLOAT" for name in _CORNERS)
_FOUND = f"STRUCT(rank SMALLINT, category_id INTEGER, {_SIDES})[]"
_OBJECTS = f"STRUCT(truth_id BIGINT, category_id INTEGER, {_SIDES}, iscrowd BOOLEAN)[]"
_OUTCOMES = "STRUCT(rank SMALLINT, outcome VARCHAR, truth_id BIGINT, iou DOUBLE)[]"
_WORDS = pa.array(["hit", "miss", "duplicate", "crowd"])


def add_matching(connection: "DuckDBPyConnection") -> None:
    """Enter `outcomes(found, objects, min_iou)`: from the boxes of one teacher in an image, best
    first, and the objects there, what became of each box; all of them lists.
    """
    connection.create_function(
        "outcomes",
        _outcomes,
        [_FOUND, _OBJECTS, "DOUBLE"],  # type: ignore[list-item]
        _OUTCOMES,  # type: ignore[arg-type]
        type="arrow",  # type: ignore[arg-type]
    )


def _outcomes(
    found: pa.ChunkedArray, objects: pa.ChunkedArray, min_iou: pa.ChunkedArray
) -> pa.Array:
    bounds, boxes, rows = _rows(found)
    _, there, truth = _rows(objects)
    iscrowd = there.field("iscrowd").to_numpy(zero_copy_only=False).astype(bool)
    # one threshold a query
    iou = min_iou[0].as_py() if len(min_iou) else 1.0
    matching = match(rows, truth, iscrowd, iou)
    nothing = matching.objects < 0
    word = np.where(nothing, 1, 2)
    word[matching.outcome == HIT], word[matching.outcome == IGNORED] = 0, 3
    columns = {
        "rank": boxes.field("rank"),
        "outcome": _WORDS.take(pa.array(word)),
        "truth_id": there.field("truth_id").take(pa.array(matching.objects, mask=nothing)),
        "iou": pa.array(matching.overlaps, mask=nothing),
    }
    answers = pa.StructArray.from_arrays(list(columns.values()), list(columns))
    return pa.ListArray.from_arrays(bounds, answers)


def _rows(lists: pa.ChunkedArray) -> tuple[pa.Array, pa.StructArray, BoxRows]:
    """The bounds of lists of boxes, int32, what is in them, and the same as arrays."""
    whole = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    counts = whole.value_lengths().to_numpy(zero_copy_only=False)
    items = whole.flatten()
    corners = [items.field(name).to_numpy(zero_copy_only=False) for name in _CORNERS]
    return (
        pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)),
        items,
        BoxRows(
            np.repeat(np.arange(len(counts)), counts),
            items.field("category_id").to_numpy(zero_copy_only=False),
            np.stack(corners, axis=1),
        ),
    )
