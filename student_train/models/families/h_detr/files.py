"""What official files of H-DETR say beyond those of Deformable DETR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from student_train.models.families.deformable_detr.files import ONE_TO_MANY, second_queries


def from_settings(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The rows of its table are those of both sets of queries."""
    contents = state.get("query_embed.weight")
    if contents is None:
        return {}
    extra = second_queries(state, settings) or ONE_TO_MANY
    return {"n_queries_one_to_many": extra, "n_queries": len(contents) - extra}
