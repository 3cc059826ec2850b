"""RT-DETRv2 in folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.families.rtdetr_v2.model import RtDetrV2Config
from student_train.models.hub.hybrid import (
    HYBRID_COPIES,
    HYBRID_TABLE,
    hybrid_settings,
)
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import expect, resnet

_BACKBONE = (
    (r"^backbone\.conv1\.conv1_1\.", "model.backbone.model.embedder.embedder.0."),
    (r"^backbone\.conv1\.conv1_2\.", "model.backbone.model.embedder.embedder.1."),
    (r"^backbone\.conv1\.conv1_3\.", "model.backbone.model.embedder.embedder.2."),
    (
        r"^backbone\.res_layers\.(\d+)\.blocks\.(\d+)\.",
        r"model.backbone.model.encoder.stages.\1.layers.\2.",
    ),
    (r"^(model\.backbone\..*)\.branch2a\.", r"\1.layer.0."),
    (r"^(model\.backbone\..*)\.branch2b\.", r"\1.layer.1."),
    (r"^(model\.backbone\..*)\.branch2c\.", r"\1.layer.2."),
    (r"^(model\.backbone\..*)\.short\.conv\.(conv|norm)\.", r"\1.shortcut.1.\2."),
    (r"^(model\.backbone\..*)\.short\.", r"\1.shortcut."),
    (r"^(model\.backbone\..*)\.conv\.", r"\1.convolution."),
    (r"^(model\.backbone\..*)\.norm\.", r"\1.normalization."),
)
# timm's name of ours -> depths, widths of the maps, kind of block
_SHAPES: dict[str, tuple[list[int], list[int], str]] = {
    "presnet18": ([2, 2, 2, 2], [64, 128, 256, 512], "basic"),
    "presnet34": ([3, 4, 6, 3], [64, 128, 256, 512], "basic"),
    "resnet50d": ([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"),
    "resnet101d": ([3, 4, 23, 3], [256, 512, 1024, 2048], "bottleneck"),
}
_OURS = {
    "resnet18": "presnet18",
    "resnet34": "presnet34",
    "resnet50": "resnet50d",
    "resnet101": "resnet101d",
}
_SAMPLING = {"default": "bilinear", "discrete": "nearest"}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = config.get("backbone_config") or {}
    expect(inner, embedding_size=64, downsample_in_bottleneck=False, hidden_act="relu")
    name = resnet(inner)
    if name is None:
        raise CheckpointError(
            f"config.json: a backbone of depths {inner.get('depths')} is none of RT-DETR's ResNets "
            "of 18, 34, 50 and 101 layers"
        )
    return {
        **hybrid_settings(config),
        "backbone": _OURS[name],
        "n_points": config.get("decoder_n_points", 4),
        "sampling": _SAMPLING[config.get("decoder_method", "default")],
        # not to be chosen there
        "depth": 1.0,
        "position_layers": 2,
    }


def _config(config: RtDetrV2Config) -> dict[str, Any]:
    if config.backbone not in _SHAPES or config.depth != 1 or config.position_layers != 2:
        raise CheckpointError(
            f"transformers has RT-DETRv2 on {', '.join(_SHAPES)}, with depth 1 and two layers for "
            f"positions; this student has {config.backbone}, {config.depth:g} and "
            f"{config.position_layers}"
        )
    depths, widths, kind = _SHAPES[config.backbone]
    first = 4 - len(config.strides)
    stages = list(range(first + 1, 5))
    layers = config.eval_layers or config.decoder_layers
    return {
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "depths": depths,
            "hidden_sizes": widths,
            "layer_type": kind,
            "embedding_size": 64,
            "downsample_in_bottleneck": False,
            "downsample_in_first_stage": False,
            "hidden_act": "relu",
            "out_features": [f"stage{i}" for i in stages],
            "out_indices": stages,
        },
        "freeze_backbone_batch_norms": config.norm == "frozen",
        "encoder_in_channels": widths[first:],
        "feat_strides": list(config.strides),
        "encode_proj_layers": [len(config.strides) - 1],
        "encoder_hidden_dim": config.encoder_dim,
        "encoder_ffn_dim": config.encoder_ffn_dim,
        "encoder_layers": config.encoder_layers,
        "encoder_attention_heads": config.n_heads,
        "hidden_expansion": config.expansion,
        "d_model": config.dim,
        "num_queries": config.n_queries,
        "decoder_in_channels": [config.encoder_dim] * len(config.strides),
        "decoder_ffn_dim": config.ffn_dim,
        "num_feature_levels": len(config.strides),
        "decoder_n_levels": len(config.strides),
        "decoder_n_points": config.n_points,
        # the layers behind the one that evaluation uses are left out, as there is no word for it
        "decoder_layers": layers,
        "decoder_attention_heads": config.n_heads,
        "decoder_activation_function": config.activation,
        "decoder_method": next(k for k, v in _SAMPLING.items() if v == config.sampling),
        "num_denoising": config.dn_number,
        "label_noise_ratio": config.dn_label_noise,
        "box_noise_scale": config.dn_box_noise,
        "dropout": config.dropout,
    }


def _built(config: RtDetrV2Config) -> dict[str, Tensor]:
    """What a sampling offset is divided by, one number a point."""
    count = len(config.strides) * config.n_points
    return {
        f"model.decoder.layers.{i}.encoder_attn.n_points_scale": torch.full(
            (count,), 1 / config.n_points
        )
        for i in range(config.decoder_layers)
    }


HUB = HubLayout(
    model_types=("rt_detr_v2", "rt_detr"),
    architecture="RTDetrV2ForObjectDetection",
    names=(*_BACKBONE, *HYBRID_TABLE),
    copies=HYBRID_COPIES,
    settings=_settings,
    config=_config,
    built=_built,
    processor="RTDetrImageProcessor",
    square=True,
)
