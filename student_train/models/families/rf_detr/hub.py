"""RF-DETR in folders of transformers, which keep the official names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.errors import CheckpointError
from student_train.models.backbones.dinov2 import dinov2_name
from student_train.models.families.lw_detr.hub import decoder_settings, decoder_words
from student_train.models.families.rf_detr.model import RfDetrConfig
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import expect


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    vit = config.get("backbone_config") or {}
    expect(vit, use_swiglu_ffn=False, apply_layernorm=True, mlp_ratio=4)
    # its own default, 1e-5, is no released detector's
    expect({"layer_norm_eps": 1e-5, **config}, layer_norm_eps=1e-6)
    dim, depth = vit.get("hidden_size", 768), vit.get("num_hidden_layers", 12)
    name = dinov2_name(dim, depth)
    if name is None:
        raise CheckpointError(
            f"config.json: a ViT of {depth} blocks of width {dim} is none that is known here"
        )
    patch = vit.get("patch_size", 14)
    return {
        **decoder_settings(config),
        "backbone": name,
        "patch": patch,
        "n_windows": vit.get("num_windows", 4),
        "stages": tuple(vit["out_indices"]),
        "table_side": vit.get("image_size", 224) // patch,
    }


def _config(config: RfDetrConfig) -> dict[str, Any]:
    shape = config.shape
    assert shape is not None
    vit = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "patch_size": shape.patch,
        "num_windows": shape.windows,
        "out_indices": list(config.stages),
        "image_size": config.table_side * config.patch,
        "layer_norm_eps": 1e-6,
    }
    return {"backbone_config": vit, "layer_norm_eps": 1e-6, **decoder_words(config)}


HUB = HubLayout(
    model_types=("rf_detr",),
    architecture="RfDetrForObjectDetection",
    packed=(r"(?!)", ()),
    names=(),
    settings=_settings,
    config=_config,
    # its own resizes without antialiasing, which nothing here was trained with
    processor="DeformableDetrImageProcessor",
    square=True,
)
