"""What the shapes of an official checkpoint say about the student that fits it.

Some settings leave no trace in any shape: dilation, temperatures, dropout, the number of heads, the
queries of plain Deformable DETR. They come from the settings beside the weights, or from a preset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from student_train.models.backbones.swin import SwinShape
from student_train.models.backbones.vit import ViTShape
from student_train.models.naming import count

Sizes = dict[str, tuple[str, int, int]]
"""field -> (official name, axis, how many more the file has)"""
DENSE_SIZES: Sizes = {
    "n_classes": ("class_embed.bias", 0, 0),
    "dim": ("input_proj.bias", 0, 0),
    "ffn_dim": ("transformer.encoder.layers.0.linear1.bias", 0, 0),
}
DEFORMABLE_SIZES: Sizes = {
    "n_classes": ("class_embed.0.bias", 0, 0),
    "dim": ("transformer.level_embed", 1, 0),
    "n_levels": ("transformer.level_embed", 0, 0),
    "ffn_dim": ("transformer.encoder.layers.0.linear1.bias", 0, 0),
    "n_queries": ("query_embed.weight", 0, 0),
}
# field -> official names that are counted
_LAYERS = {
    "encoder_layers": r"transformer\.encoder\.layers\.(\d+)\.",
    "decoder_layers": r"transformer\.decoder\.layers\.(\d+)\.",
}
_RESNETS = {"resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}


def settings_from_sizes(sizes: Sizes, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings that the lengths of tensors, the layers counted and the backbone's names tell."""
    found: dict[str, Any] = {}
    for field, (name, axis, more) in sizes.items():
        if name in state:
            found[field] = state[name].shape[axis] - more
    for field, pattern in _LAYERS.items():
        if layers := count(state, pattern):
            found[field] = layers
    if backbone := backbone_from_names(state):
        found["backbone"] = backbone
    return found


def backbone_from_names(state: Mapping[str, Tensor]) -> str | None:
    """timm's name of the backbone; None for one that is not among the official ones."""
    bodies = {re.sub(r"^backbone\.(0\.)?(body\.)?", "", key): value for key, value in state.items()}
    if "layers.0.blocks.0.attn.relative_position_bias_table" in bodies:
        table = bodies["layers.0.blocks.0.attn.relative_position_bias_table"]
        depths = tuple(count(bodies, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
        # a row for every shift between two places of a window, in both directions
        window = (math.isqrt(len(table)) + 1) // 2
        return SwinShape.name_of(bodies["patch_embed.proj.weight"].shape[0], depths, window)
    if "blocks.0.attn.qkv.weight" in bodies:
        dim, _, patch, _ = bodies["patch_embed.proj.weight"].shape
        return ViTShape.name_of(dim, count(bodies, r"blocks\.(\d+)\."), patch)
    if "layer1.0.conv1.weight" in bodies:
        blocks = [count(bodies, rf"layer{i}\.(\d+)\.") for i in (1, 2, 3, 4)]
        return next((name for name, depths in _RESNETS.items() if blocks == depths), None)
    return None


def maps(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Strides of the maps that are projected one to one; coarser levels have larger kernels."""
    kernels = [
        state[f"input_proj.{i}.0.weight"].shape[-1]
        for i in range(count(state, r"input_proj\.(\d+)\."))
    ]
    strides = (4, 8, 16, 32)[4 - kernels.count(1) :]
    return {"strides": strides} if strides else {}


def same_heads(state: Mapping[str, Tensor]) -> bool:
    """Whether all decoder layers hold the same head (official DINO) or each its own (detrex)."""
    stored = [value for key, value in state.items() if re.match(r"class_embed\.\d+\.weight", key)]
    return all(torch.equal(stored[0], other) for other in stored[1:])
