"""The official sizes of LW-DETR, as settings."""

from typing import Any

_WIDE = {"dim": 384, "n_heads": 12, "n_sampling_heads": 24, "n_points": 4, "levels": ("P3", "P5")}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"backbone": "cae_vit_tiny_6", "n_queries": 100, "top_k": 100},
    "small": {"backbone": "cae_vit_tiny_10"},
    "medium": {"backbone": "cae_vit_small_10"},
    "large": {"backbone": "cae_vit_small_10", "drop_path": 0.1, **_WIDE},
    "xlarge": {"backbone": "cae_vit_base_10", "drop_path": 0.1, **_WIDE},
}
"""by name"""
