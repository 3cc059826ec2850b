"""DAB-DETR in folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.errors import CheckpointError
from student_train.models.families.dab_detr.model import DabDetrConfig
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import DETR_ENCODER, expect, single_scale_settings
from student_train.models.hub.writing import single_scale_words

_LAYER = r"^(model\.decoder\.layers\.\d+)\."


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    expect(config, activation_function="prelu", query_dim=4, keep_query_pos=False, num_patterns=0)
    temperature = config.get("temperature_height", 20)
    if config.get("temperature_width", 20) != temperature:
        raise CheckpointError("config.json: temperatures of height and width differ")
    return {**single_scale_settings(config), "temperature": float(temperature)}


def _config(config: DabDetrConfig) -> dict[str, Any]:
    if config.n_patterns or config.temperature != int(config.temperature):
        raise CheckpointError(
            "transformers has DAB-DETR without patterns and with temperatures that are whole; this "
            f"student has n_patterns={config.n_patterns} and temperature={config.temperature:g}"
        )
    return {
        **single_scale_words(config),
        "hidden_size": config.dim,
        "activation_function": "prelu",
        "temperature_height": int(config.temperature),
        "temperature_width": int(config.temperature),
        "num_patterns": 0,
        "keep_query_pos": False,
        "query_dim": 4,
    }


HUB = HubLayout(
    model_types=("dab-detr",),
    architecture="DabDetrForObjectDetection",
    names=(
        (r"^backbone\.0\.body\.", "model.backbone.conv_encoder.model._backbone."),
        (r"^transformer\.decoder\.bbox_embed\.", "bbox_predictor."),
        (r"^bbox_embed\.", "bbox_predictor."),
        (r"^transformer\.", "model."),
        (r"^input_proj\.", "model.input_projection."),
        (r"^refpoint_embed\.", "model.query_refpoint_embeddings."),
        (r"\.decoder\.norm\.", ".decoder.layernorm."),
        (rf"{_LAYER}norm1\.", r"\1.self_attn.self_attn_layer_norm."),
        (rf"{_LAYER}norm2\.", r"\1.cross_attn.cross_attn_layer_norm."),
        (rf"{_LAYER}norm3\.", r"\1.mlp.final_layer_norm."),
        (rf"{_LAYER}(self|cross)_attn\.out_proj\.", r"\1.\2_attn.\2_attn.output_proj."),
        (rf"{_LAYER}sa_q(content|pos|pos_sine)_proj\.", r"\1.self_attn.self_attn_query_\2_proj."),
        (rf"{_LAYER}sa_k(content|pos)_proj\.", r"\1.self_attn.self_attn_key_\2_proj."),
        (rf"{_LAYER}sa_v_proj\.", r"\1.self_attn.self_attn_value_proj."),
        (rf"{_LAYER}ca_q(content|pos|pos_sine)_proj\.", r"\1.cross_attn.cross_attn_query_\2_proj."),
        (rf"{_LAYER}ca_k(content|pos)_proj\.", r"\1.cross_attn.cross_attn_key_\2_proj."),
        (rf"{_LAYER}ca_v_proj\.", r"\1.cross_attn.cross_attn_value_proj."),
        (rf"{_LAYER}linear(\d)\.", r"\1.mlp.fc\2."),
        (rf"{_LAYER}activation\.", r"\1.mlp.activation_fn."),
        (r"^(model\.encoder\.layers\.\d+)\.activation\.", r"\1.activation_fn."),
        *DETR_ENCODER,
    ),
    settings=_settings,
    config=_config,
    frozen_norms=True,
    processor="ConditionalDetrImageProcessor",
)
