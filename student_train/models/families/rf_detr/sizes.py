"""The official sizes of RF-DETR, as settings."""

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "nano": {"decoder_layers": 2, "table_side": 24},
    "small": {"decoder_layers": 3, "table_side": 32},
    "medium": {"decoder_layers": 4, "table_side": 36},
    "large": {"decoder_layers": 4, "table_side": 44},
    "base": {
        "decoder_layers": 3,
        "table_side": 37,
        "patch": 14,
        "n_windows": 4,
        "stages": (2, 5, 8, 11),
    },
}
"""by name"""
