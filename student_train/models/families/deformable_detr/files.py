"""What official files of Deformable DETR and H-DETR say: they share all names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from student_train.models.shapes import maps

ONE_TO_MANY = 1500
"""official H-DETR's queries of the second set"""


def second_queries(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> int:
    """How many queries of H-DETR's second set a file holds: as the settings beside it say, or 1500
    where its table has more rows than that; 0 for plain Deformable DETR.
    """
    if told := settings.get("num_queries_one2many", 0):
        return told
    contents = state.get("query_embed.weight")
    return ONE_TO_MANY if contents is not None and len(contents) > ONE_TO_MANY else 0


def from_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The maps; and the table of contents, which mixed selection brings: official runs look forward
    twice with it.
    """
    mixed = "query_embed.weight" in state
    return maps(state) | {"mixed_selection": mixed, "look_forward_twice": mixed}
