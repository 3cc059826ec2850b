"""`id2label`, what transformers calls the categories of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from box_store.categories import Categories, Category, ClassSpace, normalised
from box_store.coco.categories80 import COCO_CATEGORIES
from student_train.errors import CheckpointError

_UNUSED = "N/A"


def class_space_of(config: Mapping[str, Any]) -> ClassSpace | None:
    """What the logits mean by `id2label`; none if it has only numbers for names.

    Names in COCO's order are COCO's categories with their ids. A table with gaps (`N/A`, as DETR's
    91 raw ids have) is indexed by id; any other has the index for its id.

    Raises CheckpointError for a table that is no table of names.
    """
    table = config.get("id2label")
    if not table:
        return None
    try:
        names = {int(index): str(name) for index, name in table.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"config.json: id2label is no table of names: {error}") from error
    if set(names) != set(range(len(names))):
        raise CheckpointError("config.json: id2label does not count from 0 without gaps")
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        return None
    if [normalised(names[i]) for i in range(len(names))] == [
        normalised(name) for name in COCO_CATEGORIES.names
    ]:
        return ClassSpace("contiguous", COCO_CATEGORIES)
    named = [Category(i, name) for i, name in sorted(names.items()) if name != _UNUSED]
    raw = len(named) < len(names)
    space = ClassSpace("raw" if raw else "contiguous", Categories(tuple(named)))
    if space.n_classes != len(names):
        raise CheckpointError(
            f"config.json: id2label has {len(names)} entries, of which the last named is "
            f"{named[-1].id if named else 'none'}"
        )
    return space


def id2label(space: ClassSpace) -> dict[str, str]:
    """The table of a class space, `N/A` where a logit is unused."""
    return {str(i): name or _UNUSED for i, name in enumerate(space.names)}
