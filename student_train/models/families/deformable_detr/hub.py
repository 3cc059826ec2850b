"""Two-stage Deformable DETR in folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.errors import CheckpointError
from student_train.models.families.deformable_detr.model import DeformableDetrConfig
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import (
    DETR_ENCODER,
    TIMM_BACKBONE,
    expect,
    transformer_settings,
)
from student_train.models.hub.writing import transformer_words


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    expect(config, two_stage=True, with_box_refine=True, activation_function="relu")
    points = config.get("decoder_n_points", 4)
    if config["d_model"] < 128:
        raise CheckpointError(
            f"config.json: d_model={config['d_model']}: below 128 the norms of the projections "
            "have fewer groups here than in transformers"
        )
    expect(config, encoder_n_points=points, dilation=False)
    return {
        **transformer_settings(config),
        # of two stages, the second begins with so many
        "n_queries": config.get("two_stage_num_proposals", 300),
        "n_levels": config.get("num_feature_levels", 4),
        "n_points": points,
        "mixed_selection": False,
        "look_forward_twice": False,
    }


def _config(config: DeformableDetrConfig) -> dict[str, Any]:
    if config.mixed_selection or config.dim < 128:
        mixed = str(config.mixed_selection).lower()
        raise CheckpointError(
            "transformers has Deformable DETR without mixed selection and at least 128 wide; this "
            f"student has mixed_selection={mixed} and dim={config.dim}"
        )
    return {
        **transformer_words(config),
        "d_model": config.dim,
        "num_feature_levels": config.n_levels,
        "encoder_n_points": config.n_points,
        "decoder_n_points": config.n_points,
        "two_stage": True,
        "two_stage_num_proposals": config.n_queries,
        "with_box_refine": True,
        "activation_function": "relu",
    }


HUB = HubLayout(
    model_types=("deformable_detr",),
    architecture="DeformableDetrForObjectDetection",
    names=(
        TIMM_BACKBONE,
        (r"^transformer\.", "model."),
        (r"^input_proj\.", "model.input_proj."),
        # the official code numbers the norms of a decoder layer in the other order
        (r"(decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
        (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
        (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
        (r"\.cross_attn\.", ".encoder_attn."),
        *DETR_ENCODER,
    ),
    copies=((r"^(class|bbox)_embed\.", r"model.decoder.\1_embed."),),
    settings=_settings,
    config=_config,
    frozen_norms=True,
    processor="DeformableDetrImageProcessor",
)
