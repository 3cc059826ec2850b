"""What official files of RF-DETR say of the settings that fit them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.backbones.dinov2 import dinov2_name
from student_train.models.families.lw_detr.files import SIZES, common_settings
from student_train.models.naming import count

__all__ = ["SIZES", "from_settings", "from_state"]

_VIT = "backbone.0.encoder.encoder"
# official word -> ours, where other families use neither
_WORDS = {
    "patch_size": "patch",
    "num_windows": "n_windows",
    "out_feature_indexes": "stages",
    "positional_encoding_size": "table_side",
    "sa_nheads": "n_heads",
    "ca_nheads": "n_sampling_heads",
    "dec_n_points": "n_points",
}
# the two that are larger have patches of this side and DINOv2-B
_LICENSED_PATCH = 20

LICENCE = (
    "RF-DETR XL and 2XL are under the Platform Model License 1.0, which binds whoever uses them to "
    "Roboflow's platform: they are not supported. Nano, small, medium, large and base are under "
    "Apache-2.0"
)


def from_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of RF-DETR that a state dict tells.

    Windows and taps leave no trace: patches of 14 px are those of RF-DETR-base, which has others
    than all that came later. Raises CheckpointError for the sizes that are not free.
    """
    patches = state[f"{_VIT}.embeddings.patch_embeddings.projection.weight"]
    patch = patches.shape[-1]
    if patch == _LICENSED_PATCH:
        raise CheckpointError(LICENCE)
    found = common_settings(state) | {"patch": patch}
    table = state[f"{_VIT}.embeddings.position_embeddings"]
    found["table_side"] = math.isqrt(table.shape[1] - 1)
    depth = count(state, r"backbone\.0\.encoder\.encoder\.encoder\.layer\.(\d+)\.")
    if backbone := dinov2_name(patches.shape[0], depth):
        found["backbone"] = backbone
    if patch == 14:
        found |= {"n_windows": 4, "stages": (2, 5, 8, 11)}
    return found


def from_settings(
    settings: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Settings of RF-DETR that its `args` say in words that other families do not share."""
    if "PML" in str(settings.get("license", "")):
        raise CheckpointError(LICENCE)
    found = {ours: settings[theirs] for theirs, ours in _WORDS.items() if theirs in settings}
    if "stages" in found:
        found["stages"] = tuple(found["stages"])
    return found
