"""What the `config.json` of several families says in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from student_train.errors import CheckpointError

_RESNETS = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
}


def expect(config: Mapping[str, Any], **values: Any) -> None:
    """Raise CheckpointError unless the named settings, where given, have these values."""
    for name, wanted in values.items():
        found = config.get(name, wanted)
        if found != wanted:
            raise CheckpointError(f"config.json: {name}={found}, but this student has {wanted}")


def n_classes(config: Mapping[str, Any]) -> int:
    """Logits, no-object not counted."""
    labels = config.get("id2label")
    return len(labels) if labels else int(config.get("num_labels", 2))


def backbone_name(config: Mapping[str, Any]) -> str:
    """timm's name of the backbone.

    Raises CheckpointError for one that is not known.
    """
    inner = config.get("backbone_config") or {}
    if inner.get("model_type") in ("resnet", "rt_detr_resnet"):
        found = resnet(inner)
        if found is not None:
            return found
    name = inner.get("backbone") or config.get("backbone")
    if not name:
        raise CheckpointError(
            "config.json names no backbone that is known here: expected one of timm, or a ResNet "
            "of 18, 34, 50 or 101 layers"
        )
    return str(name)


def resnet(inner: Mapping[str, Any]) -> str | None:
    """timm's name of a ResNet by its depths; none for other depths."""
    depths = tuple(inner.get("depths", ()))
    return _RESNETS.get((inner.get("layer_type", "bottleneck"), depths))


def transformer_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a transformer whose encoder and decoder agree in them."""
    heads, hidden = config["encoder_attention_heads"], config["encoder_ffn_dim"]
    expect(config, decoder_attention_heads=heads, decoder_ffn_dim=hidden, normalize_before=False)
    return {
        "backbone": backbone_name(config),
        "n_classes": n_classes(config),
        "n_queries": config["num_queries"],
        "dim": config.get("d_model") or config["hidden_size"],
        "n_heads": heads,
        "encoder_layers": config["encoder_layers"],
        "decoder_layers": config["decoder_layers"],
        "ffn_dim": hidden,
        "dropout": float(config.get("dropout", 0.0)),
    }


def single_scale_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a transformer over one map, which may be dilated."""
    inner = config.get("backbone_config") or {}
    stride = 16 if config.get("dilation") or inner.get("output_stride") == 16 else 32
    return {
        **transformer_settings(config),
        "strides": (stride,),
        "output_stride": stride,
    }


# the backbone, from official names to those on disk: timm's, or transformers' own ResNet
TIMM_BACKBONE = (r"^backbone\.0\.body\.", "model.backbone.conv_encoder.model.")
DETR_ENCODER = (
    (r"(encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"\.linear(\d)\.", r".fc\1."),
)
