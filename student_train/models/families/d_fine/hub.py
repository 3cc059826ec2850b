"""D-FINE in folders of transformers.

Theirs has ReLU in every head whatever `config.json` says, so a DEIM (SiLU) cannot be such a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from student_train.errors import CheckpointError
from student_train.models.families.d_fine.model import DFineConfig
from student_train.models.hub.hybrid import (
    HYBRID_COPIES,
    HYBRID_TABLE,
    hybrid_settings,
)
from student_train.models.hub.layout import HubLayout
from student_train.models.hub.settings import expect

_NAMES = (
    (r"^backbone\.stem\.", "model.backbone.model.embedder."),
    (r"^backbone\.stages\.", "model.backbone.model.encoder.stages."),
    (r"^(model\.backbone\..*)\.conv\.", r"\1.convolution."),
    (r"^(model\.backbone\..*)\.bn\.", r"\1.normalization."),
    (r"^(encoder\.downsample_convs\.\d+)\.0\.", r"\1."),
    (r"^(encoder\..*)\.cv2\.0\.", r"\1.csp_rep1."),
    (r"^(encoder\..*)\.cv3\.0\.", r"\1.csp_rep2."),
    (r"^(encoder\..*)\.cv([23])\.1\.", r"\1.conv\2."),
    (r"^(encoder\..*)\.cv(\d)\.", r"\1.conv\2."),
    *HYBRID_TABLE,
)
_LADDER = ("hgnetv2_b0", "hgnetv2_b1", "hgnetv2_b2", "hgnetv2_b3")
"""of timm's, those with a learned scale and bias behind each activation"""
_HGNETS = (*_LADDER, "hgnetv2_b4", "hgnetv2_b5", "hgnetv2_b6")
_STAGE = (
    "stage_in_channels",
    "stage_mid_channels",
    "stage_out_channels",
    "stage_num_blocks",
    "stage_downsample",
    "stage_light_block",
    "stage_kernel_size",
    "stage_numb_of_layers",
)
"""their words for what timm lists of a stage, in timm's order"""


@cache
def _hgnet(name: str) -> dict[str, Any]:
    """Shape of one of timm's HGNetv2 in their words."""
    from timm.models.hgnet import model_cfgs

    shape = model_cfgs[name]
    first, last = shape["stem_chs"]
    stages = [shape[f"stage{i}"] for i in range(1, 5)]
    columns = zip(*stages, strict=True)
    return {
        "stem_channels": [3, first, last],
        "use_learnable_affine_block": name in _LADDER,
        **{word: list(column) for word, column in zip(_STAGE, columns, strict=True)},
    }


def _backbone(inner: Mapping[str, Any]) -> str:
    expect(inner, model_type="hgnet_v2", hidden_act="relu")
    for name in _HGNETS:
        if all(_plain(inner.get(word)) == value for word, value in _hgnet(name).items()):
            return name
    raise CheckpointError(
        f"config.json: a backbone of stem_channels={inner.get('stem_channels')} and "
        f"stage_out_channels={inner.get('stage_out_channels')} is none of HGNetv2's B0 to B6"
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    fields = hybrid_settings(config)
    levels = len(fields["strides"])
    expect(
        config,
        decoder_activation_function="relu",
        decoder_method="default",
        layer_scale=1,
        lqe_hidden_dim=64,
        lqe_layers=2,
        num_feature_levels=levels,
        top_prob_values=4,
    )
    points = config.get("decoder_n_points", 4)
    if config.get("eval_idx", -1) not in (-1, fields["decoder_layers"] - 1):
        raise CheckpointError(
            f"config.json: eval_idx={config['eval_idx']}, for which transformers stores layers "
            "that nothing uses; this student reads folders whose last layer answers, eval_idx=-1"
        )
    return {
        **fields,
        "backbone": _backbone(config.get("backbone_config") or {}),
        "depth": float(config.get("depth_mult", 1.0)),
        "n_points": (points,) * levels if isinstance(points, int) else tuple(points),
        "n_bins": config.get("max_num_bins", 32),
        "reg_scale": float(config.get("reg_scale", 4.0)),
    }


def _config(config: DFineConfig) -> dict[str, Any]:
    if config.backbone not in _HGNETS or config.activation != "relu":
        raise CheckpointError(
            f"transformers has D-FINE on {', '.join(_HGNETS)}, with activation relu (so not DEIM); "
            f"this student has {config.backbone} and {config.activation}"
        )
    shape = _hgnet(config.backbone)
    levels = len(config.strides)
    stages = list(range(5 - levels, 5))
    widths = shape["stage_out_channels"]
    layers = config.eval_layers or config.decoder_layers
    return {
        "backbone_config": {
            "model_type": "hgnet_v2",
            "hidden_act": "relu",
            "hidden_sizes": widths,
            "depths": shape["stage_num_blocks"],
            "embedding_size": shape["stem_channels"][-1],
            "out_features": [f"stage{i}" for i in stages],
            "out_indices": stages,
            **shape,
        },
        "freeze_backbone_batch_norms": config.norm == "frozen",
        "encoder_in_channels": widths[-levels:],
        "feat_strides": list(config.strides),
        "encode_proj_layers": [levels - 1],
        "encoder_hidden_dim": config.encoder_dim,
        "encoder_ffn_dim": config.encoder_ffn_dim,
        "encoder_layers": config.encoder_layers,
        "encoder_attention_heads": config.n_heads,
        "hidden_expansion": config.expansion,
        "depth_mult": config.depth,
        "d_model": config.dim,
        "num_queries": config.n_queries,
        "decoder_in_channels": [config.encoder_dim] * levels,
        "decoder_ffn_dim": config.ffn_dim,
        "num_feature_levels": levels,
        "decoder_n_points": list(config.n_points),
        # the layers behind the one that evaluation uses are left out
        "decoder_layers": layers,
        "decoder_attention_heads": config.n_heads,
        "decoder_activation_function": config.activation,
        "max_num_bins": config.n_bins,
        "reg_scale": config.reg_scale,
        "num_denoising": config.dn_number,
        "label_noise_ratio": config.dn_label_noise,
        "box_noise_scale": config.dn_box_noise,
        "dropout": config.dropout,
    }


def _built(config: DFineConfig) -> dict[str, Tensor]:
    """What a sampling offset is divided by, one number a point."""
    scales = torch.tensor([1 / n for n in config.n_points for _ in range(n)])
    return {
        f"model.decoder.layers.{i}.encoder_attn.num_points_scale": scales.clone()
        for i in range(config.decoder_layers)
    }


HUB = HubLayout(
    model_types=("d_fine",),
    architecture="DFineForObjectDetection",
    names=_NAMES,
    copies=HYBRID_COPIES,
    settings=_settings,
    config=_config,
    built=_built,
    processor="RTDetrImageProcessor",
    square=True,
)
