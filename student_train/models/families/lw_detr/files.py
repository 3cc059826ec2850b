"""What official files of LW-DETR say of the settings that fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from student_train.models.backbones.cae_vit import cae_name
from student_train.models.naming import count

SIZES = {
    "n_classes": ("class_embed.bias", 0, 0),
    "dim": ("query_feat.weight", 1, 0),
    "ffn_dim": ("transformer.decoder.layers.0.linear1.bias", 0, 0),
}
"""settings that are the length of an official tensor"""

_STAGE = "backbone.0.projector.stages"
# every released detector has heads of so many channels
_SELF_HEAD, _SAMPLING_HEAD = 32, 16


def from_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of LW-DETR that a state dict tells."""
    depth = count(state, r"backbone\.0\.encoder\.blocks\.(\d+)\.")
    found = common_settings(state)
    if backbone := cae_name(state["backbone.0.encoder.pos_embed"].shape[-1], depth):
        found["backbone"] = backbone
    return found


def common_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of both families: groups and what is in them, levels, heads and points.

    Sizes of heads leave no trace: those of the released detectors are taken.
    """
    found: dict[str, Any] = {}
    rows = state["query_feat.weight"].shape[0]
    groups = count(state, r"transformer\.enc_output\.(\d+)\.")
    if groups and rows % groups == 0:
        found |= {"n_groups": groups, "n_queries": rows // groups}
    levels = _levels(state)
    if levels:
        found["levels"] = levels
    samples = state.get("transformer.decoder.layers.0.cross_attn.attention_weights.bias")
    dim = state["query_feat.weight"].shape[1]
    heads = dim // _SAMPLING_HEAD
    if samples is not None and levels and heads and len(samples) % (heads * len(levels)) == 0:
        points = len(samples) // (heads * len(levels))
        found |= {"n_heads": dim // _SELF_HEAD, "n_sampling_heads": heads, "n_points": points}
    return found


def _levels(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """One for each stage of the projector, by what its first convolution before the stage is: it
    enlarges (P3), halves (P5), or is not there (P4).
    """
    levels = []
    for stage in range(count(state, r"backbone\.0\.projector\.stages\.(\d+)\.")):
        sampling = f"{_STAGE}_sampling.{stage}.0.0."
        if f"{sampling}weight" in state or f"{_STAGE}_sampling.{stage}.0.1.weight" in state:
            levels.append("P3")
        else:
            levels.append("P5" if f"{sampling}conv.weight" in state else "P4")
    return tuple(levels)
