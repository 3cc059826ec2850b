"""Conditional DETR in folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.models.families.conditional_detr.model import ConditionalDetrConfig
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import (
    DETR_ENCODER,
    TIMM_BACKBONE,
    expect,
    single_scale_settings,
)
from student_train.models.hub.writing import single_scale_words


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    expect(config, activation_function="relu", position_embedding_type="sine")
    return single_scale_settings(config)


def _config(config: ConditionalDetrConfig) -> dict[str, Any]:
    words = {"d_model": config.dim, "activation_function": "relu"}
    return {**single_scale_words(config), **words, "position_embedding_type": "sine"}


HUB = HubLayout(
    model_types=("conditional_detr",),
    architecture="ConditionalDetrForObjectDetection",
    names=(
        TIMM_BACKBONE,
        (r"^transformer\.", "model."),
        (r"^input_proj\.", "model.input_projection."),
        (r"^query_embed\.", "model.query_position_embeddings."),
        (r"^class_embed\.", "class_labels_classifier."),
        (r"^bbox_embed\.", "bbox_predictor."),
        (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
        (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
        (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
        (r"\.cross_attn\.out_proj\.", ".encoder_attn.out_proj."),
        (r"\.decoder\.norm\.", ".decoder.layernorm."),
        *DETR_ENCODER,
    ),
    settings=_settings,
    config=_config,
    frozen_norms=True,
    processor="ConditionalDetrImageProcessor",
)
