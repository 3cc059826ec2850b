"""Names of lyuwenyu/RT-DETR (`rtdetrv2_pytorch`), and what its shapes say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from student_train.models.hybrid_names import HYBRID_NAMES, hybrid_settings
from student_train.models.naming import count, rename

# ours -> official, first fit
_NAMES = [
    *HYBRID_NAMES,
    (r"^encoder\.downsamples\.", "encoder.downsample_convs."),
    # ours are numbered as Deformable DETR's: the norm after self-attention is the second
    (r"^decoder\.layers\.(\d+)\.norm1\.", r"decoder.decoder.layers.\1.norm2."),
    (r"^decoder\.layers\.(\d+)\.norm2\.", r"decoder.decoder.layers.\1.norm1."),
    (r"^decoder\.layers\.", "decoder.decoder.layers."),
]
# timm's ResNet-D -> PResNet
_STEM = {
    "conv1.0": "conv1_1.conv",
    "conv1.1": "conv1_1.norm",
    "conv1.3": "conv1_2.conv",
    "conv1.4": "conv1_2.norm",
    "conv1.6": "conv1_3.conv",
    "bn1": "conv1_3.norm",
}
_BLOCK = re.compile(r"^layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)$")
_DEPTHS = {(2, 2, 2, 2): "presnet18", (3, 4, 6, 3): "presnet34"}
_BOTTLENECK_DEPTHS = {(3, 4, 6, 3): "resnet50d", (3, 4, 23, 3): "resnet101d"}


def official_names(student: nn.Module, key: str) -> list[str]:
    """The official name of our `key`; none if it has none."""
    if key.startswith("backbone.body."):
        # backbones that the official code does not have keep their own names
        own = key.removeprefix("backbone.body.")
        return [f"backbone.{presnet_name(own) or own}"]
    return rename(_NAMES, key)


def presnet_name(key: str) -> str | None:
    """PResNet's name of a parameter of timm's ResNet-D; None for one that it lacks."""
    for ours, official in _STEM.items():
        if key.startswith(f"{ours}."):
            return f"conv1.{official}.{key.removeprefix(f'{ours}.')}"
    found = _BLOCK.match(key)
    if found is None:
        return None
    stage, block, kind, number, leaf = found.groups()
    if kind == "downsample.":
        # where the map is halved, a pool stands before the convolution
        part = "short" if stage == "1" else "short.conv"
        branch = f"{part}.{'conv' if number == '1' else 'norm'}"
    else:
        branch = f"branch2{'abc'[int(number) - 1]}.{'conv' if kind == 'conv' else 'norm'}"
    return f"res_layers.{int(stage) - 1}.blocks.{block}.{branch}.{leaf}"


def settings_from_shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of the configuration that a state dict under official names determines.

    Not among them are activation, frozen norms, sampling, queries and the layers of evaluation.
    """
    found = hybrid_settings(state)
    depths = tuple(count(state, rf"backbone\.res_layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
    wide = any(".branch2c." in key for key in state)
    backbone = (_BOTTLENECK_DEPTHS if wide else _DEPTHS).get(depths)  # type: ignore[arg-type]
    if backbone is not None:
        found["backbone"] = backbone
    found["depth"] = count(state, r"encoder\.fpn_blocks\.0\.bottlenecks\.(\d+)\.") / 3
    inner = state.get("encoder.fpn_blocks.0.conv1.conv.weight")
    if inner is not None and "encoder_dim" in found:
        found["expansion"] = len(inner) / found["encoder_dim"]
    offsets = state.get("decoder.decoder.layers.0.cross_attn.attention_weights.bias")
    if offsets is not None and "strides" in found:
        # eight heads in all of them: nothing tells heads from points
        found["n_points"] = len(offsets) // (8 * len(found["strides"]))
    return found
