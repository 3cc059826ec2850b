"""What can be wrong with the rows of one unit, as masks."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from box_store.store.reader import xyxy_of


def image_keys(*tables: pa.Table) -> list[NDArray[np.int64]]:
    """A number for every row of tables with the columns `split` and `image_id`: the same for rows
    of the same image.
    """
    names: dict[str, int] = {}
    codes, ids = [], []
    for table in tables:
        column = table["split"].unify_dictionaries().combine_chunks()
        known = [names.setdefault(name, len(names)) for name in column.dictionary.to_pylist()]
        indices = column.indices.to_numpy().astype(np.int64)
        codes.append(np.asarray(known, np.int64)[indices] if known else indices)
        ids.append(table["image_id"].to_numpy())
    _, places = np.unique(np.concatenate(ids), return_inverse=True)
    keys = places.astype(np.int64) * max(1, len(names)) + np.concatenate(codes)
    return np.split(keys, np.cumsum([len(each) for each in ids])[:-1])


def box_faults(
    boxes: pa.Table,
    images: pa.Table,
    keys: NDArray[np.int64],
    place: NDArray[np.int64],
    known: NDArray[np.bool_],
    category_ids: NDArray[np.int64],
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Kinds of faults of the rows of a unit: what is wrong, and a mask of the rows.

    keys: int [N], of each box's image (`image_keys`). place: int [N], the row of `images` that a
    box belongs to, meaningful where `known`.
    category_ids: those of the data set.
    """
    xyxy, scores = xyxy_of(boxes), boxes["score"].to_numpy()
    finite = np.isfinite(xyxy).all(axis=1) & np.isfinite(scores)
    yield "with values that are not finite", ~finite
    sides = xyxy[:, 2:] - xyxy[:, :2]
    yield "inverted", finite & (sides < 0).any(axis=1)
    yield "without area", finite & (sides >= 0).all(axis=1) & (sides == 0).any(axis=1)
    yield "with a score outside 0..1", finite & ((scores < 0) | (scores > 1))
    yield "of an unknown category", ~np.isin(boxes["category_id"].to_numpy(), category_ids)
    row = np.where(known, place, 0)
    if images.num_rows:
        size = np.stack([images["width"].to_numpy(), images["height"].to_numpy()], axis=1)[row]
        outside = (xyxy[:, :2] < 0).any(axis=1) | (xyxy[:, 2:] > size).any(axis=1)
        yield "outside their image", finite & known & outside
        failed = np.array([status != "ok" for status in images["status"].to_pylist()])[row]
        yield "of an image that failed", known & failed
    ranks = boxes["rank"].to_numpy()
    first = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    follows = np.concatenate([[0], ranks[:-1] + 1])[: len(ranks)]
    yield "out of order or twice (rank)", ranks != np.where(first, 0, follows)
    above = np.concatenate([[np.inf], scores[:-1]])[: len(scores)]
    yield "scoring more than the box ranked before it", ~first & (scores > above)
