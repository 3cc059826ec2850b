"""What official training scripts keep beside the weights (`args`), in the words of our settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from student_train.models.config import StudentConfig

# theirs -> ours; fields that a family lacks are left out
_WORDS = {
    "dropout": "dropout",
    "nheads": "n_heads",
    "dec_n_points": "n_points",
    "pe_temperatureH": "temperature",
    "num_queries": "n_queries",
    "num_queries_one2one": "n_queries",
    "num_queries_one2many": "n_queries_one_to_many",
    "mixed_selection": "mixed_selection",
    "look_forward_twice": "look_forward_twice",
    "num_patterns": "n_patterns",
    "num_select": "top_k",
    "topk": "top_k",
    "drop_path_rate": "drop_path",
    "dn_number": "dn_number",
    "dn_label_noise_ratio": "dn_label_noise",
    "dn_box_noise_scale": "dn_box_noise",
    "scalar": "dn_groups",
    "label_noise_scale": "dn_label_noise",
    "box_noise_scale": "dn_box_noise",
    "init_pe_size": "table_size",
    "mid_pe_size": "mid_table_size",
}


def settings_from_arguments(
    config: type[StudentConfig], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of a family's configuration that the official settings name."""
    fields = {field.name for field in dataclasses.fields(config)}
    found = {
        ours: tuple(arguments[theirs]) if ours.endswith("table_size") else arguments[theirs]
        for theirs, ours in _WORDS.items()
        if ours in fields and arguments.get(theirs) is not None
    }
    return found
