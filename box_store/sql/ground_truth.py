"""The ground truth of a connection: one annotation file, or several of splits, whose images are
those of the store by split and id.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from box_store.coco.annotations import CocoData
from box_store.errors import DataError
from box_store.identity import seen_by
from box_store.places.image_files import stored_name
from box_store.store import splits
from box_store.store.reader import seen_images
from box_store.store.store import BoxStore

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TRUTH = """
SELECT
    'truth' AS teacher, t.image_id, t.category_id, c.name AS category, 1::FLOAT AS score,
    t.x1, t.y1, t.x2, t.y2, t.x2 - t.x1 AS width, t.y2 - t.y1 AS height,
    (t.x2 - t.x1) * (t.y2 - t.y1) AS area,
    (row_number() OVER (PARTITION BY t.split, t.image_id ORDER BY t.truth_id) - 1)::SMALLINT
        AS rank,
    1::FLOAT AS calibrated_score, NULL::VARCHAR AS licence, t.split,
    t.truth_id, t.iscrowd
FROM annotation_rows t
LEFT JOIN categories c USING (category_id)
"""


@dataclass(frozen=True)
class Part:
    """One annotation file, and what of a store it speaks of."""

    coco: CocoData
    store: BoxStore
    """as these annotations see it"""
    split_of: dict[int, str]
    """by image id the split under which the store has it; its own where the store has not"""


def parts_of(store: BoxStore, cocos: Sequence[CocoData]) -> list[Part]:
    """Annotations beside what they speak of.

    Raises DataError as `identity.seen_by` does, and where two files list one image, or an id of two
    images of which the store has one and does not say which.
    """
    parts = []
    for coco in cocos:
        seen = seen_by(store, coco)
        labels = splits.labels_of(seen_images(seen))
        parts.append(Part(coco, seen, {i.id: labels.get(i.id, i.split) for i in coco.images}))
    if len(parts) > 1:
        _tell_apart(parts)
    return parts


def shown_by(store: BoxStore, parts: Sequence[Part]) -> BoxStore:
    """The store as all of them together see it."""
    shown = [part.store.shown for part in parts]
    known = [each for each in shown if each is not None]
    if not parts or len(known) < len(shown):
        return store
    return store.showing(frozenset().union(*known))


def _tell_apart(parts: Sequence[Part]) -> None:
    """Leave each image of the store to one of the files that list its id: that of its split."""
    listing: Mapping[tuple[str, int], list[Part]] = defaultdict(list)
    for part in parts:
        for image_id, split in part.split_of.items():
            listing[split, image_id].append(part)
    for (split, image_id), several in listing.items():
        if len(several) == 1:
            continue
        own = [p for p in several if splits.are_one(p.coco.by_id[image_id].split, split)]
        if len(own) != 1:
            first, second, *_ = own or several
            raise DataError(
                f"{first.coco.path} and {second.coco.path} both list image {image_id} "
                f"({first.coco.by_id[image_id].file_name}, "
                f"{second.coco.by_id[image_id].file_name}), and no name of a split says which of "
                "them has the store's: give one of them, or both as --data SRC --split NAME "
                "--split NAME"
            )
        for part in several:
            if part is not own[0]:
                part.split_of[image_id] = part.coco.by_id[image_id].split


def make_dataset_images(connection: "DuckDBPyConnection", parts: Sequence[Part]) -> None:
    """The table of the images that are annotated."""
    connection.execute(
        "CREATE TABLE dataset_images (image_id BIGINT, file_name VARCHAR, width INTEGER, "
        "height INTEGER, split VARCHAR)"
    )
    for part in parts:
        images = part.coco.images
        rows = pa.table(
            {
                "image_id": pa.array([image.id for image in images], pa.int64()),
                "file_name": pa.array([stored_name(i.file_name) for i in images], pa.string()),
                "width": pa.array([image.width for image in images], pa.int32()),
                "height": pa.array([image.height for image in images], pa.int32()),
                "split": pa.array([part.split_of[image.id] for image in images], pa.string()),
            }
        )
        from_arrow(
            connection, rows, "rows_of_images", "INSERT INTO dataset_images FROM rows_of_images"
        )


def make_truth(connection: "DuckDBPyConnection", parts: Sequence[Part]) -> None:
    """The table `truth`; `truth_id` counts through all parts."""
    starts = accumulate((part.coco.n_boxes for part in parts[:-1]), initial=0)
    rows = pa.concat_tables(_rows(*each) for each in zip(parts, starts, strict=True))
    from_arrow(connection, rows, "annotation_rows", f"CREATE TABLE truth AS {_TRUTH}")


def _rows(part: Part, start: int) -> pa.Table:
    table = part.coco.table
    low, sides = table.boxes_xywh[:, :2], table.boxes_xywh[:, 2:]
    corners = np.concatenate([low, low + sides], axis=1)
    counts = np.diff(table.offsets)
    # a name for each image, not for each of its rows
    names = pa.array([part.split_of[key] for key in table.image_ids.tolist()], pa.string())
    return pa.table(
        {
            "truth_id": np.arange(start, start + len(corners), dtype=np.int64),
            "image_id": np.repeat(table.image_ids, counts),
            "split": names.take(pa.array(np.repeat(np.arange(len(counts)), counts))),
            "category_id": table.category_ids,
            "x1": corners[:, 0],
            "y1": corners[:, 1],
            "x2": corners[:, 2],
            "y2": corners[:, 3],
            "iscrowd": table.iscrowd,
        }
    )


def from_arrow(connection: "DuckDBPyConnection", rows: pa.Table, name: str, statement: str) -> None:
    """Run a statement that sees an Arrow table under a name. (Rows of tuples cost an import of
    pandas where that is installed.)
    """
    connection.register(name, rows)
    connection.execute(statement)
    connection.unregister(name)
