"""Conditional and DAB-DETR against transformers' own implementations."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from student_train.models import ConditionalDetrConfig, DabDetrConfig, build_student

transformers = pytest.importorskip("transformers")

SIZES = [(61, 83), (50, 70)]
SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "n_classes": 5,
    "n_queries": 6,
    "dim": 32,
    "n_heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "ffn_dim": 48,
    "dropout": 0.0,
    "top_k": 5,
}
STRIDED = {"strides": (32,), "output_stride": 32}
CONFIGS = {
    "conditional": ConditionalDetrConfig(**SMALL),
    "conditional_strided": ConditionalDetrConfig(**SMALL | STRIDED),
    "dab": DabDetrConfig(**SMALL),
    "dab_patterns": DabDetrConfig(**SMALL, n_patterns=2),
}

# ours -> transformers', first fit
COMMON = [
    (r"projection\.", "model.input_projection."),
    (r"(encoder|decoder)\.scale\.", r"model.\1.query_scale."),
    (r"decoder\.norm\.", "model.decoder.layernorm."),
    (r"heads\.boxes\.0\.", "bbox_predictor."),
    (r"encoder\.(layers\.\d+)\.norm\.", r"model.encoder.\1.self_attn_layer_norm."),
    (r"encoder\.(layers\.\d+)\.feed_forward\.norm\.", r"model.encoder.\1.final_layer_norm."),
]
CONDITIONAL = [
    (r"backbone\.body\.", "model.backbone.model."),
    (r"queries\.", "model.query_position_embeddings."),
    (r"heads\.classes\.0\.", "class_labels_classifier."),
    (r"reference\.", "model.decoder.ref_point_head."),
    (r"(\w+coder\.layers\.\d+)\.feed_forward\.linear(\d)", r"model.\1.mlp.fc\2"),
    (r"encoder\.(layers\.\d+)\.self_attn\.out_proj\.", r"model.encoder.\1.self_attn.o_proj."),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"model.\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"model.\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.feed_forward\.norm\.", r"model.\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.self_attn\.", r"model.\1.self_attn."),
    (r"(decoder\.layers\.\d+)\.cross_attn\.", r"model.\1.encoder_attn."),
]
CONDITIONAL_PARTS = {
    "query_content": "q_content_proj",
    "query_position": "q_pos_proj",
    "query_centre": "q_pos_sine_proj",
    "key_content": "k_content_proj",
    "key_position": "k_pos_proj",
    "value": "v_proj",
    "out": "o_proj",
}
DAB = [
    (r"backbone\.body\.", "model.backbone.conv_encoder.model._backbone."),
    (r"anchors\.", "model.query_refpoint_embeddings."),
    (r"patterns\.", "model.patterns."),
    (r"heads\.classes\.0\.", "class_embed."),
    (r"decoder\.query_position\.", "model.decoder.ref_point_head."),
    (r"decoder\.size\.", "model.decoder.ref_anchor_head."),
    (r"encoder\.(layers\.\d+)\.feed_forward\.linear(\d)", r"model.encoder.\1.fc\2"),
    (r"encoder\.(layers\.\d+)\.feed_forward\.activation", r"model.encoder.\1.activation_fn"),
    (r"decoder\.(layers\.\d+)\.feed_forward\.linear(\d)", r"model.decoder.\1.mlp.fc\2"),
    (r"decoder\.(layers\.\d+)\.feed_forward\.activation", r"model.decoder.\1.mlp.activation_fn"),
    (r"(decoder\.layers\.\d+)\.norm1\.", r"model.\1.self_attn.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"model.\1.cross_attn.cross_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.feed_forward\.norm\.", r"model.\1.mlp.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.(self|cross)_attn\.out\.", r"model.\1.\2_attn.\2_attn.output_proj."),
    (r"(decoder\.layers\.\d+)\.(self|cross)_attn\.", r"model.\1.\2_attn.\2_attn_"),
    (r"encoder\.", "model.encoder."),
]
DAB_PARTS = {
    "query_content": "query_content_proj",
    "query_position": "query_pos_proj",
    "query_centre": "query_pos_sine_proj",
    "key_content": "key_content_proj",
    "key_position": "key_pos_proj",
    "value": "value_proj",
}


def to_transformers(state: dict[str, Tensor], dab: bool, layers: int) -> dict[str, Tensor]:
    """Our state dict by transformers' names, as far as the first `layers` decoder layers."""
    table = COMMON + (DAB if dab else CONDITIONAL)
    parts = DAB_PARTS if dab else CONDITIONAL_PARTS
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        layer = re.match(r"decoder\.layers\.(\d+)\.", key)
        if layer and int(layer[1]) >= layers:
            continue
        packed = re.fullmatch(r"encoder\.(layers\.\d+\.self_attn)\.in_proj_(\w+)", key)
        if packed:
            for name, part in zip("qkv", value.chunk(3), strict=True):
                found[f"model.encoder.{packed[1]}.{name}_proj.{packed[2]}"] = part
            continue
        pattern, name = next(pair for pair in table if re.match(pair[0], key))
        name = re.sub(f"^{pattern}", name, key)
        stem = name.rsplit(".", 1)[0]
        if layer and (part := re.search(rf"({'|'.join(parts)})$", stem)):
            name = name.replace(part[1], parts[part[1]])
        found[name] = value
        if dab and name.startswith("bbox_predictor."):
            found[name.replace("bbox_predictor", "model.decoder.bbox_embed")] = value
    return found


def reference(kind: str, layers: int) -> torch.nn.Module:
    config = CONFIGS[kind]
    backbone = {
        "model_type": "timm_backbone",
        "backbone": "test_resnet",
        "num_channels": 3,
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": [1, 2, 3, 4],
        "output_stride": config.output_stride,
    }
    sizes = {
        "num_queries": config.n_queries,
        "num_labels": config.n_classes,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": layers,
        "encoder_ffn_dim": config.ffn_dim,
        "decoder_ffn_dim": config.ffn_dim,
        "encoder_attention_heads": config.n_heads,
        "decoder_attention_heads": config.n_heads,
        "dropout": 0.0,
        "backbone_config": backbone,
    }
    if isinstance(config, DabDetrConfig):
        return transformers.DabDetrForObjectDetection(
            transformers.DabDetrConfig(
                hidden_size=config.dim, num_patterns=config.n_patterns, **sizes
            )
        )
    # with auxiliary losses, transformers feeds the normed state into the next layer
    return transformers.ConditionalDetrForObjectDetection(
        transformers.ConditionalDetrConfig(d_model=config.dim, auxiliary_loss=False, **sizes)
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers_computes_the_same_in_every_layer(kind: str, padded) -> None:
    torch.manual_seed(0)
    student = build_student(CONFIGS[kind])
    with torch.no_grad():
        for name, value in (*student.named_parameters(), *student.named_buffers()):
            noise = torch.randn_like(value)
            value.copy_(value + 0.1 * (noise.abs() if name.endswith("running_var") else noise))
    student.eval()
    images, mask = padded(SIZES)
    with torch.no_grad():
        mine = student(images, mask)
    assert len(mine.layers) == 3
    for count, prediction in enumerate(mine.layers, start=1):
        other = reference(kind, count).eval()
        state = to_transformers(student.state_dict(), kind.startswith("dab"), count)
        other.load_state_dict(state)
        with torch.no_grad():
            theirs = other(images, pixel_mask=(~mask).long())
        torch.testing.assert_close(prediction.logits, theirs.logits, atol=5e-6, rtol=1e-6)
        torch.testing.assert_close(prediction.boxes, theirs.pred_boxes, atol=1e-6, rtol=1e-6)
        # queries differ by much more than that
        assert theirs.logits.std(1).mean() > 2e-3
