"""What official files of YOLOS say of its position tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# places of YOLOS' position tables, beside those of cls and detection tokens -> pixels
_TABLES = {32 * 54: (512, 864), 50 * 83: (800, 1333), 50 * 84: (800, 1344)}


def from_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of the image that each table was made for."""
    found: dict[str, Any] = {}
    others = 1 + state["backbone.det_token"].shape[1]
    for field, key in (("table_size", "pos_embed"), ("mid_table_size", "mid_pos_embed")):
        table = state.get(f"backbone.{key}")
        if table is None:
            found[field] = None
        elif size := _TABLES.get(table.shape[-2] - others):
            found[field] = size
    return found
