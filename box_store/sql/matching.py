"""The outcome of each box for SQL: the matching of `calibration.matching`, as a DuckDB function."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from box_store.calibration.matching import HIT, IGNORED, BoxRows, match

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CORNERS = ("x1", "y1", "x2", "y2")
_SIDES = ", ".join(f"{name} FLOAT" for name in _CORNERS)
_FOUND = f"STRUCT(rank SMALLINT, score FLOAT, category_id INTEGER, {_SIDES})[]"
_OBJECTS = f"STRUCT(truth_id BIGINT, category_id INTEGER, {_SIDES}, iscrowd BOOLEAN)[]"
_OUTCOMES = "STRUCT(rank SMALLINT, score FLOAT, outcome VARCHAR, truth_id BIGINT, iou DOUBLE)[]"


def add_matching(connection: "DuckDBPyConnection") -> None:
    """Enter `outcomes(found, objects, min_iou)`: from the boxes of one teacher in an image and the
    objects there, what became of each box that met one; all of them lists.
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
    boxes, rows, n_lists = _rows(found)
    there, truth, _ = _rows(objects)
    # best first; objects come in the order of their ids, which decides between equal overlaps
    order = np.lexsort((boxes.field("rank").to_numpy(zero_copy_only=False), rows.images))
    rows = BoxRows(rows.images[order], rows.class_ids[order], rows.boxes_xyxy[order])
    iscrowd = there.field("iscrowd").to_numpy(zero_copy_only=False).astype(bool)
    # one threshold a query
    iou = min_iou[0].as_py() if len(min_iou) else 1.0
    matching = match(rows, truth, iscrowd, iou)
    met = np.flatnonzero((matching.objects >= 0) | (matching.outcome == IGNORED))
    outcome, target = matching.outcome[met], matching.objects[met]
    nothing = target < 0
    told = boxes.take(pa.array(order[met]))
    word = np.select([outcome == HIT, outcome == IGNORED], ["hit", "crowd"], "duplicate")
    columns = {
        "rank": told.field("rank"),
        "score": told.field("score"),
        "outcome": pa.array(word),
        "truth_id": there.field("truth_id").take(pa.array(target, mask=nothing)),
        "iou": pa.array(matching.overlaps[met], mask=nothing),
    }
    answers = pa.StructArray.from_arrays(list(columns.values()), list(columns))
    counts = np.bincount(rows.images[met], minlength=n_lists)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(bounds), answers)


def _rows(lists: pa.ChunkedArray) -> tuple[pa.StructArray, BoxRows, int]:
    """What is in lists of boxes, the same as arrays, and how many lists there are."""
    whole = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    counts = whole.value_lengths().to_numpy(zero_copy_only=False)
    items = whole.flatten()
    corners = [items.field(name).to_numpy(zero_copy_only=False) for name in _CORNERS]
    rows = BoxRows(
        np.repeat(np.arange(len(counts)), counts),
        items.field("category_id").to_numpy(zero_copy_only=False),
        np.stack(corners, axis=1),
    )
    return items, rows, len(counts)
