"""YOLOS in folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.errors import CheckpointError
from student_train.models.backbones.vit import ViTShape
from student_train.models.families.yolos.model import YolosConfig
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import expect, n_classes

_PACKED = r"^backbone\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)$"


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    expect(config, layer_norm_eps=1e-6, qkv_bias=True, hidden_act="gelu")
    dim, blocks = config["hidden_size"], config["num_hidden_layers"]
    expect(config, intermediate_size=4 * dim)
    name = ViTShape.name_of(dim, blocks, config["patch_size"])
    if name is None:
        raise CheckpointError(
            f"config.json: a ViT of {blocks} blocks of width {dim} is none that is known here"
        )
    height, width = config["image_size"]
    middle = config.get("use_mid_position_embeddings", True)
    return {
        "backbone": name,
        "n_classes": n_classes(config),
        "n_queries": config["num_detection_tokens"],
        "table_size": (height, width),
        "mid_table_size": (height, width) if middle else None,
    }


def _config(config: YolosConfig) -> dict[str, Any]:
    shape = ViTShape.parse(config.backbone)
    assert shape is not None
    if config.mid_table_size not in (None, config.table_size):
        raise CheckpointError(
            "transformers has YOLOS with one size for all tables of positions; this student has "
            f"table_size={config.table_size} and mid_table_size={config.mid_table_size}"
        )
    return {
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": 4 * shape.dim,
        "patch_size": shape.patch,
        "image_size": list(config.table_size),
        "num_detection_tokens": config.n_queries,
        "use_mid_position_embeddings": config.mid_table_size is not None,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }


HUB = HubLayout(
    model_types=("yolos",),
    architecture="YolosForObjectDetection",
    packed=(
        _PACKED,
        tuple(
            (_PACKED, rf"vit.encoder.layer.\1.attention.attention.{kind}.\2")
            for kind in ("query", "key", "value")
        ),
    ),
    names=(
        (r"^backbone\.cls_token$", "vit.embeddings.cls_token"),
        (r"^backbone\.det_token$", "vit.embeddings.detection_tokens"),
        (r"^backbone\.pos_embed$", "vit.embeddings.position_embeddings"),
        (r"^backbone\.mid_pos_embed$", "vit.encoder.mid_position_embeddings"),
        (r"^backbone\.patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
        (r"^backbone\.norm\.", "vit.layernorm."),
        (r"^backbone\.blocks\.", "vit.encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"^class_embed\.", "class_labels_classifier."),
        (r"^bbox_embed\.", "bbox_predictor."),
    ),
    settings=_settings,
    config=_config,
    # softmax, the last class being none; it does not cut sides as its own does
    processor="DetrImageProcessor",
)
