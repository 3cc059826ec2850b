"""What the `config.json` of several families says in the same words, written; `settings.py` reads
it.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from student_train.errors import CheckpointError
from student_train.models.backbones.backbone import BackboneConfig
from student_train.models.config import TransformerConfig
from student_train.models.single_scale import SingleScaleConfig


def transformer_words(config: TransformerConfig) -> dict[str, Any]:
    """Sizes of a transformer, and its backbone."""
    return {
        "backbone_config": _timm_backbone(config),
        "num_queries": config.n_queries,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.n_heads,
        "decoder_attention_heads": config.n_heads,
        "encoder_ffn_dim": config.ffn_dim,
        "decoder_ffn_dim": config.ffn_dim,
        "dropout": config.dropout,
    }


def single_scale_words(config: SingleScaleConfig) -> dict[str, Any]:
    """Of a transformer over one map, which may be dilated."""
    if config.strides[0] != config.output_stride:
        raise CheckpointError(
            "transformers takes the last map of the backbone, and this student one of stride "
            f"{config.strides[0]} where the last has {config.output_stride}"
        )
    return {**transformer_words(config), "dilation": config.output_stride == 16}


def _timm_backbone(config: BackboneConfig) -> dict[str, Any]:
    """A backbone of timm, as transformers names it.

    Raises CheckpointError for one that is not timm's, or would compute something else there:
    transformers puts frozen batch norms of its own in the place of timm's, which have another eps
    than some, and lose the activation that timm attaches to others.
    """
    if not timm.is_model(config.backbone) or config.backbone.startswith("swin"):
        raise CheckpointError(
            f"transformers has this family on backbones of timm, and {config.backbone} is here "
            "none of them"
        )
    options: dict[str, Any] = {"features_only": True, "pretrained": False}
    if config.output_stride != 32:
        options["output_stride"] = config.output_stride
    with torch.device("meta"):
        body = timm.create_model(config.backbone, **options)
    norms = [each for each in body.modules() if isinstance(each, nn.BatchNorm2d)]
    if any(type(each) is not nn.BatchNorm2d or each.eps != 1e-5 for each in norms):
        raise CheckpointError(
            f"transformers replaces the batch norms of {config.backbone} by some of another eps or "
            "without their activation: this student would compute something else there. ResNets "
            "stay as they are"
        )
    # with dilation two stages share a stride: the later one is meant
    last = {stride: i for i, stride in enumerate(body.feature_info.reduction())}  # type: ignore[operator,union-attr]
    return {
        "model_type": "timm_backbone",
        "backbone": config.backbone,
        "num_channels": 3,
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": [last[stride] for stride in config.strides],
        **({} if config.output_stride == 32 else {"output_stride": config.output_stride}),
    }
