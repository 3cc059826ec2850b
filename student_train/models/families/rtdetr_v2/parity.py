"""Parity of RT-DETRv2."""

from __future__ import annotations

from detr_kernels import Sampling
from student_train.models.families.rtdetr_v2.model import RtDetrV2Config
from student_train.parity.family import FamilyParity, Settings, chosen_proposals
from student_train.parity.hybrid import (
    HYBRID_MODULES,
    hybrid_criterion,
    hybrid_denoising,
    hybrid_evaluation,
    hybrid_key,
    hybrid_loss,
    hybrid_noise,
)

_BACKBONES = {18: "presnet18", 34: "presnet34", 50: "resnet50d", 101: "resnet101d"}
_SAMPLING: dict[str, Sampling] = {"default": "bilinear", "discrete": "nearest"}


def _config(settings: Settings) -> RtDetrV2Config:
    official = settings["config"]
    shapes = {key: shape for key, shape, *_ in settings["keys"]}
    return RtDetrV2Config(
        backbone=_BACKBONES[official["depth"]],
        norm="frozen" if official["freeze_norm"] else "batch",
        frozen_stem=official["freeze_at"] >= 0,
        frozen_stages=max(0, official["freeze_at"]),
        n_classes=settings["num_classes"],
        n_queries=official["num_queries"],
        decoder_layers=official["dec_layers"],
        expansion=official["expansion"],
        n_points=official["num_points"],
        sampling=_SAMPLING[official["cross_attn_method"]],
        dim=shapes["decoder.enc_output.proj.weight"][0],
        ffn_dim=shapes["decoder.decoder.layers.0.linear1.weight"][0],
        encoder_dim=shapes["encoder.input_proj.0.conv.weight"][0],
        encoder_ffn_dim=shapes["encoder.encoder.0.layers.0.linear1.weight"][0],
        dn_number=official["num_denoising"],
        dn_label_noise=official["label_noise_ratio"],
        dn_box_noise=official["box_noise_scale"],
        attention_backend="torch",
    )


PARITY = FamilyParity(
    sets=("rtdetrv2",),
    criteria={"criterion_rtdetrv2": hybrid_criterion},
    config=_config,
    loss=hybrid_loss,
    loss_key=hybrid_key,
    noise=hybrid_noise,
    denoising=hybrid_denoising,
    proposals=chosen_proposals,
    evaluation=hybrid_evaluation,
    modules={
        **HYBRID_MODULES,
        "backbone.conv1": "backbone.body.act1",
        **{f"backbone.res_layers.{i}": f"backbone.body.layer{i + 1}" for i in range(4)},
    },
)
