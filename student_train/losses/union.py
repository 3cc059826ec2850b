"""One pairing of queries and boxes for all layers: D-FINE's global optimal (GO) set.

What is matched layer by layer changes from layer to layer; boxes, which are refined from one layer
to the next, then have to run after changing goals. So all layers share the union of their pairs
(D-FINE appendix A.1 and `dfine_criterion.py`, `_get_go_indices`). A query that layers matched with
several boxes keeps the one that most of them chose. Where two were chosen equally often, the
official code lets an unstable sort decide; here it is the last decoder layer's choice, then the box
that comes first.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from student_train.losses.matcher import Match


def union_of(matches: Sequence[Match], queries: int) -> Match:
    """The union of matchings of one set of boxes, a single layer of pairs, by image and query.

    `matches` are those of the stacks, decoder layers first; `queries` is Q, which all stacks share.
    """
    image, query, target, is_last = (
        np.concatenate(column)
        for column in zip(*(_rows(m, i == 0) for i, m in enumerate(matches)), strict=True)
    )
    if not len(image):
        return Match(image, query[None], target[None])
    most = int(target.max()) + 1
    pairs, inverse, counts = np.unique(
        (image * queries + query) * most + target, return_inverse=True, return_counts=True
    )
    last = np.zeros(len(pairs), np.int64)
    np.maximum.at(last, inverse, is_last)
    owner, box = np.divmod(pairs, most)
    # by query; of its boxes the most frequent first, then the last layer's, then the lowest
    order = np.lexsort((box, -last, -counts, owner))
    kept = order[np.unique(owner[order], return_index=True)[1]]
    image, query = np.divmod(owner[kept], queries)
    return Match(image, query[None], box[kept][None])


def _rows(
    match: Match, decoder: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Image, query, target of every pair on every layer, and 1 for those of the last one."""
    layers = len(match.query)
    image = np.tile(match.image, layers)
    is_last = np.zeros(match.query.shape, np.int64)
    if decoder and layers:
        is_last[-1] = 1
    return image, match.query.ravel(), match.target.ravel(), is_last.ravel()
