"""Official names that RT-DETR's and D-FINE's repositories share, and what shapes say of both:
lyuwenyu/RT-DETR (`rtdetrv2_pytorch`), Peterande/D-FINE and Intellindust-AI-Lab/DEIM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from student_train.models.naming import count

# ours -> official, first fit
HYBRID_NAMES = [
    (r"^encoder\.projections\.", "encoder.input_proj."),
    (r"^encoder\.layers\.(\d+)\.norm\.", r"encoder.encoder.0.layers.\1.norm1."),
    (r"^encoder\.layers\.(\d+)\.feed_forward\.norm\.", r"encoder.encoder.0.layers.\1.norm2."),
    (r"^encoder\.layers\.(\d+)\.feed_forward\.", r"encoder.encoder.0.layers.\1."),
    (r"^encoder\.layers\.", "encoder.encoder.0.layers."),
    (r"^encoder\.laterals\.", "encoder.lateral_convs."),
    (r"^encoder\.top_down\.", "encoder.fpn_blocks."),
    (r"^encoder\.bottom_up\.", "encoder.pan_blocks."),
    (r"^neck\.", "decoder.input_proj."),
    (r"^queries\.project\.", "decoder.enc_output.proj."),
    (r"^queries\.norm\.", "decoder.enc_output.norm."),
    (r"^queries\.classes\.", "decoder.enc_score_head."),
    (r"^queries\.boxes\.", "decoder.enc_bbox_head."),
    (r"^denoising\.label_embedding\.", "decoder.denoising_class_embed."),
    (r"^decoder\.query_position\.", "decoder.query_pos_head."),
    (r"^heads\.classes\.", "decoder.dec_score_head."),
    (r"^heads\.boxes\.", "decoder.dec_bbox_head."),
]

# field -> (official name, axis)
_SIZES = {
    "n_classes": ("decoder.enc_score_head.bias", 0),
    "dim": ("decoder.enc_output.proj.bias", 0),
    "ffn_dim": ("decoder.decoder.layers.0.linear1.bias", 0),
    "encoder_dim": ("encoder.input_proj.0.conv.weight", 0),
    "encoder_ffn_dim": ("encoder.encoder.0.layers.0.linear1.bias", 0),
}
_LAYERS = {
    "encoder_layers": r"encoder\.encoder\.0\.layers\.(\d+)\.",
    "decoder_layers": r"decoder\.decoder\.layers\.(\d+)\.",
    "position_layers": r"decoder\.query_pos_head\.layers\.(\d+)\.",
}


def hybrid_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of a configuration that a state dict under official names determines."""
    found: dict[str, Any] = {
        field: state[name].shape[axis] for field, (name, axis) in _SIZES.items() if name in state
    }
    counts = {field: count(state, pattern) for field, pattern in _LAYERS.items()}
    maps = count(state, r"encoder\.input_proj\.(\d+)\.")
    if maps:
        found["strides"] = (8, 16, 32)[3 - maps :]
    return found | {field: number for field, number in counts.items() if number}
