"""LW-DETR in folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.errors import CheckpointError
from student_train.models.backbones.cae_vit import cae_name, cae_shape
from student_train.models.families.lw_detr.model import LwDetrConfig
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import expect, n_classes

_PACKED = r"(?:self_attn\.in_proj_|attn\.qkv\.)(weight|bias)$"
_LEVELS = {2.0: "P3", 1.0: "P4", 0.5: "P5"}


def decoder_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What LW-DETR's and RF-DETR's `config.json` say in the same words."""
    expect(config, decoder_activation_function="relu", activation_function="silu")
    expect(config, hidden_expansion=0.5, c2f_num_blocks=3, attention_bias=True)
    return {
        "n_classes": n_classes(config),
        "n_queries": config.get("num_queries", 300),
        "n_groups": config.get("group_detr", 13),
        "dim": config.get("d_model", 256),
        "n_heads": config.get("decoder_self_attention_heads", 8),
        "n_sampling_heads": config.get("decoder_cross_attention_heads", 16),
        "n_points": config.get("decoder_n_points", 4),
        "decoder_layers": config.get("decoder_layers", 3),
        "ffn_dim": config.get("decoder_ffn_dim", 2048),
        "dropout": float(config.get("dropout", 0.0)),
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    vit = config.get("backbone_config") or {}
    expect(vit, layer_norm_eps=1e-6, qkv_bias=True, patch_size=16, num_windows=16)
    expect(config, batch_norm_eps=1e-5)
    name = cae_name(vit.get("hidden_size", 768), vit.get("num_hidden_layers", 12))
    shape = None if name is None else cae_shape(name)
    if name is None or shape is None:
        raise CheckpointError(
            f"config.json: a ViT of {vit.get('num_hidden_layers')} blocks of width "
            f"{vit.get('hidden_size')} is none that is known here"
        )
    expect(
        vit,
        num_attention_heads=shape.heads,
        window_block_indices=[i for i in range(shape.depth) if i not in shape.whole],
        # they count what comes out of the first block as 1
        out_indices=[tap + 1 for tap in shape.taps],
    )
    levels = tuple(_LEVELS[scale] for scale in config["projector_scale_factors"])
    return {**decoder_settings(config), "backbone": name, "levels": levels}


def decoder_words(config: LwDetrConfig) -> dict[str, Any]:
    """The inverse of `decoder_settings`, less the classes."""
    return {
        "num_queries": config.n_queries,
        "group_detr": config.n_groups,
        "d_model": config.dim,
        "decoder_self_attention_heads": config.n_heads,
        "decoder_cross_attention_heads": config.n_sampling_heads,
        "decoder_n_points": config.n_points,
        "decoder_layers": config.decoder_layers,
        "decoder_ffn_dim": config.ffn_dim,
        "decoder_activation_function": "relu",
        "activation_function": "silu",
        "dropout": config.dropout,
    }


def _config(config: LwDetrConfig) -> dict[str, Any]:
    shape = config.shape
    assert shape is not None
    scales = {level: scale for scale, level in _LEVELS.items()}
    vit = {
        "model_type": "lw_detr_vit",
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "patch_size": shape.patch,
        "num_windows": shape.windows**2,
        "window_block_indices": [i for i in range(shape.depth) if i not in shape.whole],
        "out_indices": [tap + 1 for tap in shape.taps],
        "layer_norm_eps": 1e-6,
    }
    factors = [scales[level] for level in config.levels]
    return {"backbone_config": vit, "projector_scale_factors": factors, **decoder_words(config)}


HUB = HubLayout(
    model_types=("lw_detr",),
    architecture="LwDetrForObjectDetection",
    packed=(_PACKED, tuple((_PACKED, rf"packed.{kind}.\1") for kind in ("query", "key", "value"))),
    names=(
        (r"^(transformer\.decoder\..*)packed\.(.)\w+\.", r"\1self_attn.\2_proj."),
        (r"packed\.", "attention.attention."),
        (r"\.attn\.q_bias$", ".attention.attention.query.bias"),
        (r"\.attn\.v_bias$", ".attention.attention.value.bias"),
        (r"\.attn\.proj\.", ".attention.output."),
        (r"(encoder\.blocks\.\d+)\.mlp\.", r"\1.intermediate."),
        (r"(encoder\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
        (r"(encoder\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
        (r"^backbone\.0\.encoder\.blocks\.", "model.backbone.backbone.encoder.layer."),
        (
            r"^backbone\.0\.encoder\.pos_embed$",
            "model.backbone.backbone.embeddings.position_embeddings",
        ),
        (
            r"^backbone\.0\.encoder\.patch_embed\.proj\.",
            "model.backbone.backbone.embeddings.projection.",
        ),
        (
            r"^backbone\.0\.projector\.stages_sampling\.(\d+)\.(\d+)\.",
            r"model.backbone.projector.scale_layers.\1.sampling_layers.\2.layers.",
        ),
        (
            r"^backbone\.0\.projector\.stages\.(\d+)\.0\.",
            r"model.backbone.projector.scale_layers.\1.projector_layer.",
        ),
        (
            r"^backbone\.0\.projector\.stages\.(\d+)\.1\.",
            r"model.backbone.projector.scale_layers.\1.layer_norm.",
        ),
        (r"(scale_layers\..*)\.m\.(\d+)\.", r"\1.bottlenecks.\2."),
        (r"(scale_layers\..*)\.cv(\d)\.", r"\1.conv\2."),
        (r"(scale_layers\..*)\.bn\.", r"\1.norm."),
        (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
        (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.cross_attn_layer_norm."),
        (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.layer_norm."),
        (r"(decoder\.layers\.\d+)\.linear(\d)\.", r"\1.mlp.fc\2."),
        (r"(decoder\.layers\.\d+\.self_attn)\.out_proj\.", r"\1.o_proj."),
        (r"^transformer\.decoder\.norm\.", "model.decoder.layernorm."),
        (r"^transformer\.", "model."),
        (r"^refpoint_embed\.", "model.reference_point_embed."),
        (r"^query_feat\.", "model.query_feat."),
    ),
    settings=_settings,
    config=_config,
    processor="DeformableDetrImageProcessor",
    square=True,
)
