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
from student_train.models.families.d_fine import names as d_fine
from student_train.models.families.lw_detr import files as lw_detr
from student_train.models.families.rf_detr import files as rf_detr
from student_train.models.families.rtdetr_v2 import names as rtdetr_v2
from student_train.models.official.rename import count

# field -> (official name, axis, how many more the file has)
_Sizes = dict[str, tuple[str, int, int]]
_DENSE: _Sizes = {
    "n_classes": ("class_embed.bias", 0, 0),
    "dim": ("input_proj.bias", 0, 0),
    "ffn_dim": ("transformer.encoder.layers.0.linear1.bias", 0, 0),
}
_DEFORMABLE: _Sizes = {
    "n_classes": ("class_embed.0.bias", 0, 0),
    "dim": ("transformer.level_embed", 1, 0),
    "n_levels": ("transformer.level_embed", 0, 0),
    "ffn_dim": ("transformer.encoder.layers.0.linear1.bias", 0, 0),
    "n_queries": ("query_embed.weight", 0, 0),
}
_SIZES: dict[str, _Sizes] = {
    "conditional_detr": {**_DENSE, "n_queries": ("query_embed.weight", 0, 0)},
    "dab_detr": {
        **_DENSE,
        "n_queries": ("refpoint_embed.weight", 0, 0),
        "n_patterns": ("transformer.patterns.weight", 0, 0),
    },
    "dn_detr": {**_DENSE, "n_queries": ("refpoint_embed.weight", 0, 0)},
    "deformable_detr": _DEFORMABLE,
    "h_detr": _DEFORMABLE,
    "dino": {**_DEFORMABLE, "n_queries": ("transformer.tgt_embed.weight", 0, 0)},
    "yolos": {
        # the last logit is no-object
        "n_classes": ("class_embed.layers.2.bias", 0, 1),
        "n_queries": ("backbone.det_token", 1, 0),
    },
    "lw_detr": lw_detr.SIZES,
    "rf_detr": rf_detr.SIZES,
    "vidt": {
        "n_classes": ("class_embed.0.bias", 0, 0),
        "n_queries": ("backbone.det_token", 1, 0),
        "dim": ("transformer.level_embed", 1, 0),
        "ffn_dim": ("transformer.decoder.layers.0.linear1.bias", 0, 0),
    },
}
# field -> official names that are counted
_LAYERS = {
    "encoder_layers": r"transformer\.encoder\.layers\.(\d+)\.",
    "decoder_layers": r"transformer\.decoder\.layers\.(\d+)\.",
}
ONE_TO_MANY = 1500
"""official H-DETR's queries of the second set"""
_RESNETS = {"resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}
# places of YOLOS' position tables, beside those of cls and detection tokens -> pixels
_TABLES = {32 * 54: (512, 864), 50 * 83: (800, 1333), 50 * 84: (800, 1344)}


def settings_from_shapes(family: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of the family's configuration that a state dict under official names determines."""
    found: dict[str, Any] = {}
    for field, (name, axis, more) in _SIZES.get(family, {}).items():
        if name in state:
            found[field] = state[name].shape[axis] - more
    for field, pattern in _LAYERS.items():
        if number := count(state, pattern):
            found[field] = number
    if backbone := backbone_from_names(state):
        found["backbone"] = backbone
    if family in ("dino", "deformable_detr", "h_detr"):
        found |= _maps(state)
    if family == "dino":
        found["share_heads"] = _same_heads(state)
    if family == "yolos":
        found |= _tables(state)
    if family in ("deformable_detr", "h_detr"):
        found |= _selection(state)
    if family == "lw_detr":
        found |= lw_detr.from_state(state)
    if family == "rf_detr":
        found |= rf_detr.from_state(state)
    if family == "rtdetr_v2":
        found |= rtdetr_v2.settings_from_shapes(state)
    if family == "d_fine":
        found |= d_fine.settings_from_shapes(state)
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


def _maps(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Strides of the maps that are projected one to one; coarser levels have larger kernels."""
    kernels = [
        state[f"input_proj.{i}.0.weight"].shape[-1]
        for i in range(count(state, r"input_proj\.(\d+)\."))
    ]
    strides = (4, 8, 16, 32)[4 - kernels.count(1) :]
    return {"strides": strides} if strides else {}


def _same_heads(state: Mapping[str, Tensor]) -> bool:
    """Whether all decoder layers hold the same head (official DINO) or each its own (detrex)."""
    stored = [value for key, value in state.items() if re.match(r"class_embed\.\d+\.weight", key)]
    return all(torch.equal(stored[0], other) for other in stored[1:])


def _selection(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The table of contents is what mixed selection brings; official runs look forward twice with
    it.
    """
    mixed = "query_embed.weight" in state
    return {"mixed_selection": mixed, "look_forward_twice": mixed}


def _tables(state: Mapping[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    others = 1 + state["backbone.det_token"].shape[1]
    for field, key in (("table_size", "pos_embed"), ("mid_table_size", "mid_pos_embed")):
        table = state.get(f"backbone.{key}")
        if table is None:
            found[field] = None
        elif size := _TABLES.get(table.shape[-2] - others):
            found[field] = size
    return found


def is_hybrid(state: Mapping[str, Tensor]) -> bool:
    """Whether a Deformable DETR is an H-DETR: the same names, and 1500 contents more."""
    contents = state.get("query_embed.weight")
    return contents is not None and len(contents) > ONE_TO_MANY
