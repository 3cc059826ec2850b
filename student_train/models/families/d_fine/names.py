"""Names of Peterande/D-FINE and Intellindust-AI-Lab/DEIM, and what their shapes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from student_train.models.hybrid_names import HYBRID_NAMES, hybrid_settings
from student_train.models.naming import count, rename

# ours -> official, first fit
_NAMES = [
    (r"^backbone\.body\.stages_", "backbone.stages."),
    (r"^backbone\.body\.", "backbone."),
    (r"^encoder\.downsamples\.(\d+)\.", r"encoder.downsample_convs.\1.0."),
    *HYBRID_NAMES,
    (r"^decoder\.layers\.", "decoder.decoder.layers."),
    (r"^decoder\.initial\.", "decoder.pre_bbox_head."),
    (r"^decoder\.quality\.(\d+)\.read\.", r"decoder.decoder.lqe_layers.\1.reg_conf."),
]
# stored in two places
_TWICE = {"decoder.up": "up", "decoder.scale": "reg_scale"}
# channels of HGNetv2's first and last convolution before the stages, and of the first stage
_HGNETS = {
    (16, 16, 64): "hgnetv2_b0",
    (24, 32, 64): "hgnetv2_b1",
    (24, 32, 96): "hgnetv2_b2",
    (24, 32, 128): "hgnetv2_b3",
    (32, 48, 128): "hgnetv2_b4",
    (32, 64, 128): "hgnetv2_b5",
    (48, 96, 192): "hgnetv2_b6",
}
_BACKBONE = ("stem.stem1.conv", "stem.stem4.conv", "stages.0.blocks.0.aggregation.1.conv")


def official_names(student: nn.Module, key: str) -> list[str]:
    """The official names of our `key`; none if it has none."""
    if key in _TWICE:
        return [f"decoder.{_TWICE[key]}", f"decoder.decoder.{_TWICE[key]}"]
    return rename(_NAMES, key)


def settings_from_shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of the configuration that a state dict under official names determines.

    Not among them are the activation (so nothing tells DEIM from D-FINE), frozen norms and queries.
    """
    found = hybrid_settings(state)
    found.pop("position_layers", None)
    widths = tuple(len(state.get(f"backbone.{name}.weight", ())) for name in _BACKBONE)
    if backbone := _HGNETS.get(widths):  # type: ignore[call-overload]
        found["backbone"] = backbone
    found["depth"] = count(state, r"encoder\.fpn_blocks\.0\.cv2\.0\.bottlenecks\.(\d+)\.") / 3
    branch = state.get("encoder.fpn_blocks.0.cv2.1.conv.weight")
    if branch is not None and "encoder_dim" in found:
        found["expansion"] = _expansion(len(branch), found["encoder_dim"])
    edges = state.get("decoder.dec_bbox_head.0.layers.2.bias")
    if edges is not None:
        found["n_bins"] = len(edges) // 4 - 1
    scale = state.get("decoder.reg_scale")
    if scale is not None and not scale.is_meta:
        found["reg_scale"] = float(scale)
    weights = state.get("decoder.decoder.layers.0.cross_attn.attention_weights.bias")
    if weights is not None and "strides" in found:
        # eight heads in all of them: nothing tells heads from points
        found["n_points"] = _points(len(weights) // 8, len(found["strides"]))
    return found


def _expansion(branch: int, dim: int) -> float:
    """The official one that makes branches so wide, if one does."""
    official = (each for each in (0.34, 0.5, 1.0) if round(each * dim // 2) == branch)
    return next(official, 2 * branch / dim)


def _points(total: int, levels: int) -> tuple[int, ...]:
    """Points by level: the official 3, 6, 3 of three levels, else as many on each."""
    return (3, 6, 3) if (total, levels) == (12, 3) else (total // levels,) * levels
