"""DINO as other code bases store it, put into the words of IDEA-Research/DINO.

detrex and mmdet train the same network with heads of their own for every decoder layer; their
checkpoints differ in names, and in little else. Once translated they are official checkpoints to
everything that follows. Names are those of detrex 0.5 (`projects/dino`, with detectron2's
backbones) and mmdet 3.3.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from student_train.models.naming import count
from student_train.models.official.names import is_known

Table = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Translation:
    """A state dict under official names."""

    source: str
    """who wrote it: official, detrex or mmdet"""
    state: dict[str, Tensor]
    origin: dict[str, str] = field(default_factory=dict)
    """official name -> name in the file, where they differ"""
    added: tuple[str, ...] = ()
    """official names of what the file has no use for: zero biases, the unused row of the labels"""
    settings: dict[str, Any] = field(default_factory=dict)
    """model settings of this code base that its weights do not show"""


def translate(state: Mapping[str, Tensor]) -> Translation:
    """Rename what detrex or mmdet wrote; any other state dict is taken for official.

    Where no names are known, those behind a wrapper's are looked at (`model.` of Lightning,
    `ema.module.`): of several groups the average of the weights, else the largest.
    """
    found = _named(state)
    if found.source != "official" or is_known(state):
        return found
    for prefix in _wrappers(state):
        inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        unwrapped = _named(inner)
        if unwrapped.source != "official" or is_known(inner):
            origin = {name: prefix + unwrapped.origin.get(name, name) for name in unwrapped.state}
            for name in unwrapped.added:
                origin.pop(name, None)
            return replace(unwrapped, origin=origin)
    return found


def _wrappers(state: Mapping[str, Tensor]) -> list[str]:
    """Up to two first parts that names share, such as `model.` and `ema.module.`."""
    counts: Counter[str] = Counter()
    for name in state:
        first, *rest = name.split(".")
        counts[f"{first}."] += 1
        if len(rest) > 1:
            counts[f"{first}.{rest[0]}."] += 1
    return sorted(counts, key=lambda prefix: ("ema" not in prefix, -counts[prefix], prefix))


def _named(state: Mapping[str, Tensor]) -> Translation:
    if "bbox_head.cls_branches.0.weight" in state and "memory_trans_fc.weight" in state:
        # it bounds logits of references less where boxes are measured from them
        return _translated("mmdet", state, _MMDET, {"box_eps": 1e-5})
    if "transformer.level_embeds" in state and "neck.convs.0.conv.weight" in state:
        # its image positions: 10000 where DINO has 20, counted from the cells' centres
        return _translated(
            "detrex",
            state,
            _DETREX,
            {"temperature": 10000.0, "position_offset": 0.5, "dn_label_noise": 0.2},
        )
    if "encoder.input_proj.0.0.weight" in state and "decoder.enc_score_head.weight" in state:
        return _translated("libreyolo", state, _LIBREYOLO, {})
    return Translation("official", dict(state))


def _translated(
    source: str, state: Mapping[str, Tensor], table: Table, settings: dict[str, Any]
) -> Translation:
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    names = {key: _replace_all(key, table) for key in state}
    n_layers = count(names.values(), r"transformer\.decoder\.layers\.(\d+)\.")
    n_maps = count(names.values(), r"input_proj\.(\d+)\.")
    for key, value in state.items():
        name = _placed(names[key], n_layers, n_maps)
        if source == "mmdet" and re.search(r"^backbone.*downsample\.(norm|reduction)\.", key):
            value = _official_merging(value)
        # heads stand in two places in detrex: a second that differs is reported as such
        if name in renamed and not torch.equal(renamed[name], value):
            name = f"transformer.decoder.{name}"
        renamed[name] = value
        origin.setdefault(name, key)
    added = _zero_biases(renamed) | _unused_label(renamed)
    return Translation(source, renamed | added, origin, tuple(added), settings)


def _replace_all(key: str, table: Table) -> str:
    for pattern, official in table:
        key = re.sub(pattern, official, key)
    return key


def _placed(name: str, n_layers: int, n_maps: int) -> str:
    """The head after the last layer's is the encoder's; extra levels count on from the maps."""
    if head := re.match(rf"(class|bbox)_embed\.{n_layers}\.", name):
        return f"transformer.enc_out_{head[1]}_embed.{name[head.end() :]}"
    if extra := re.match(r"extra_proj\.(\d+)\.", name):
        return f"input_proj.{n_maps + int(extra[1])}.{name[extra.end() :]}"
    return name


def _official_merging(value: Tensor) -> Tensor:
    """The four neighbours that Swin merges: outermost and column by column, not innermost and row
    by row.
    """
    apart = value.unflatten(-1, (-1, 4)).movedim(-1, -2)  # [..., 4, C]
    return apart[..., [0, 2, 1, 3], :].flatten(-2)


def _zero_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of projections that have none because a norm follows."""
    return {
        f"{name.removesuffix('weight')}bias": value.new_zeros(len(value))
        for name, value in state.items()
        if re.fullmatch(r"input_proj\.\d+\.0\.weight", name)
        and f"{name.removesuffix('weight')}bias" not in state
    }


def _unused_label(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The table of labels, whose last row the official code has and never looks up."""
    labels, heads = state.get("label_enc.weight"), state.get("class_embed.0.bias")
    if labels is None or heads is None or len(labels) != len(heads):
        return {}
    return {"label_enc.weight": torch.cat((labels, labels.new_zeros(1, labels.shape[1])))}


# replaced one after another; so do files of RT-DETR's first version
_LIBREYOLO: Table = (
    (r"^encoder\.input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
    (r"^encoder\.input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
)
_NORMS: Table = (
    (r"(transformer\.encoder\.layers\.\d+)\.norms\.0\.", r"\1.norm1."),
    (r"(transformer\.encoder\.layers\.\d+)\.norms\.1\.", r"\1.norm2."),
    # official decoders name the norm after self-attention norm2, that after cross-attention norm1
    (r"(transformer\.decoder\.layers\.\d+)\.norms\.0\.", r"\1.norm2."),
    (r"(transformer\.decoder\.layers\.\d+)\.norms\.1\.", r"\1.norm1."),
    (r"(transformer\.decoder\.layers\.\d+)\.norms\.2\.", r"\1.norm3."),
)
_MMDET: Table = (
    (r"^backbone\.patch_embed\.projection\.", "backbone.0.patch_embed.proj."),
    (r"^backbone\.(?=patch_embed\.|norm\d\.)", "backbone.0."),
    (r"^(backbone\.stages\..*)\.attn\.w_msa\.", r"\1.attn."),
    (r"^(backbone\.stages\..*)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"^(backbone\.stages\..*)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
    (r"^backbone\.stages\.", "backbone.0.layers."),
    (r"^backbone\.(?!0\.)", "backbone.0.body."),
    (r"^neck\.convs\.(\d+)\.conv\.", r"input_proj.\1.0."),
    (r"^neck\.convs\.(\d+)\.gn\.", r"input_proj.\1.1."),
    (r"^neck\.extra_convs\.(\d+)\.conv\.", r"extra_proj.\1.0."),
    (r"^neck\.extra_convs\.(\d+)\.gn\.", r"extra_proj.\1.1."),
    (r"^(encoder|decoder)\.", r"transformer.\1."),
    (r"^(transformer\..*)\.ffn\.layers\.0\.0\.", r"\1.linear1."),
    (r"^(transformer\..*)\.ffn\.layers\.1\.", r"\1.linear2."),
    (r"^(transformer\.decoder\..*\.self_attn)\.attn\.", r"\1."),
    *_NORMS,
    (r"^level_embed$", "transformer.level_embed"),
    (r"^query_embedding\.", "transformer.tgt_embed."),
    (r"^memory_trans_fc\.", "transformer.enc_output."),
    (r"^memory_trans_norm\.", "transformer.enc_output_norm."),
    (r"^dn_query_generator\.label_embedding\.", "label_enc."),
    (r"^bbox_head\.cls_branches\.", "class_embed."),
    # linear layers stand at 0, 2 and 4, with ReLUs between them
    (r"^bbox_head\.reg_branches\.(\d+)\.0\.", r"bbox_embed.\1.layers.0."),
    (r"^bbox_head\.reg_branches\.(\d+)\.2\.", r"bbox_embed.\1.layers.1."),
    (r"^bbox_head\.reg_branches\.(\d+)\.4\.", r"bbox_embed.\1.layers.2."),
)
_DETREX: Table = (
    (r"^backbone\.stem\.", "backbone.0.body."),
    (r"^backbone\.res2\.", "backbone.0.body.layer1."),
    (r"^backbone\.res3\.", "backbone.0.body.layer2."),
    (r"^backbone\.res4\.", "backbone.0.body.layer3."),
    (r"^backbone\.res5\.", "backbone.0.body.layer4."),
    (r"^(backbone\.0\.body\..*)\bconv(\d)\.norm\.", r"\1bn\2."),
    (r"^(backbone\.0\.body\..*)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(backbone\.0\.body\..*)\.shortcut\.", r"\1.downsample.0."),
    (r"^backbone\.(?!0\.)", "backbone.0."),
    (r"^neck\.convs\.(\d+)\.conv\.", r"input_proj.\1.0."),
    (r"^neck\.convs\.(\d+)\.norm\.", r"input_proj.\1.1."),
    (r"^neck\.extra_convs\.(\d+)\.conv\.", r"extra_proj.\1.0."),
    (r"^neck\.extra_convs\.(\d+)\.norm\.", r"extra_proj.\1.1."),
    (r"^(transformer\.encoder\..*)\.attentions\.0\.", r"\1.self_attn."),
    (r"^(transformer\.decoder\..*)\.attentions\.0\.attn\.", r"\1.self_attn."),
    (r"^(transformer\.decoder\..*)\.attentions\.1\.", r"\1.cross_attn."),
    (r"^(transformer\..*)\.ffns\.0\.layers\.0\.0\.", r"\1.linear1."),
    (r"^(transformer\..*)\.ffns\.0\.layers\.1\.", r"\1.linear2."),
    *_NORMS,
    (r"^transformer\.level_embeds$", "transformer.level_embed"),
    (r"^transformer\.decoder\.(class|bbox)_embed\.", r"\1_embed."),
)
