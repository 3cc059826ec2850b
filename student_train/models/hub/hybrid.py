"""What RT-DETR's and D-FINE's folders have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.models.hub.settings import expect, n_classes

HYBRID_TABLE = (
    (r"^encoder\.input_proj\.(\d+)\.conv\.", r"model.encoder_input_proj.\1.0."),
    (r"^encoder\.input_proj\.(\d+)\.norm\.", r"model.encoder_input_proj.\1.1."),
    (r"^decoder\.input_proj\.(\d+)\.conv\.", r"model.decoder_input_proj.\1.0."),
    (r"^decoder\.input_proj\.(\d+)\.norm\.", r"model.decoder_input_proj.\1.1."),
    (r"^encoder\.", "model.encoder."),
    (r"^decoder\.enc_output\.proj\.", "model.enc_output.0."),
    (r"^decoder\.enc_output\.norm\.", "model.enc_output.1."),
    (r"^decoder\.(enc_|denoising_)", r"model.\1"),
    (r"^decoder\.dec_score_head\.", "model.decoder.class_embed."),
    (r"^decoder\.dec_bbox_head\.", "model.decoder.bbox_embed."),
    (r"^decoder\.decoder\.", "model.decoder."),
    (r"^decoder\.", "model.decoder."),
    (r"^(model\.encoder\.encoder\..*)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.encoder\.encoder\..*)\.norm2\.", r"\1.final_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.linear(\d)\.", r".fc\1."),
)
# heads stand a second time beside the model in some files
HYBRID_COPIES = ((r"^(class|bbox)_embed\.", r"model.decoder.\1_embed."),)


def hybrid_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that both have."""
    heads = config.get("encoder_attention_heads", 8)
    expect(
        config,
        decoder_attention_heads=heads,
        normalize_before=False,
        learn_initial_query=False,
        positional_encoding_temperature=10000,
        encoder_activation_function="gelu",
        activation_function="silu",
        decoder_offset_scale=0.5,
        layer_norm_eps=1e-5,
        batch_norm_eps=1e-5,
    )
    return {
        "n_classes": n_classes(config),
        "n_queries": config.get("num_queries", 300),
        "strides": tuple(config.get("feat_strides", (8, 16, 32))),
        "dim": config.get("d_model", 256),
        "n_heads": heads,
        "ffn_dim": config.get("decoder_ffn_dim", 1024),
        "encoder_dim": config.get("encoder_hidden_dim", 256),
        "encoder_ffn_dim": config.get("encoder_ffn_dim", 1024),
        "encoder_layers": config.get("encoder_layers", 1),
        "decoder_layers": config.get("decoder_layers", 6),
        "expansion": float(config.get("hidden_expansion", 1.0)),
        "activation": config.get("decoder_activation_function", "relu"),
        "dropout": float(config.get("dropout", 0.0)),
        "dn_number": config.get("num_denoising", 100),
        "dn_label_noise": float(config.get("label_noise_ratio", 0.5)),
        "dn_box_noise": float(config.get("box_noise_scale", 1.0)),
    }
