"""What the families' tables of official names are written with."""

import re
from collections.abc import Iterable, Sequence

from student_train.models.backbones.backbone import Backbone
from student_train.models.backbones.swin import Swin


def rename(table: Sequence[tuple[str, str]], key: str) -> list[str]:
    """`key` with the first pattern of (pattern, replacement) that fits replaced, or nothing."""
    for pattern, official in table:
        if re.match(pattern, key):
            return [re.sub(pattern, official, key, count=1)]
    return []


def backbone_name(backbone: Backbone, key: str) -> str:
    """DETR's name of a parameter of `backbone.body`, as its descendants keep it."""
    swin = isinstance(backbone.body, Swin)
    return key.replace("backbone.body.", "backbone.0." if swin else "backbone.0.body.", 1)


def layer_head_names(key: str, shared_by: int | None) -> list[str]:
    """Names of `heads.KIND.LAYER.REST` where heads are registered in the decoder and again beside
    it.

    `shared_by` is the number of layers that one stored pair stands for; None if each has its own.
    """
    head = re.match(r"^heads\.(classes|boxes)\.(\d+)\.(.+)$", key)
    if head is None:
        return []
    kind = {"classes": "class_embed", "boxes": "bbox_embed"}[head[1]]
    layers = range(shared_by) if shared_by is not None else [int(head[2])]
    stems = (f"transformer.decoder.{kind}", kind)
    return [f"{stem}.{layer}.{head[3]}" for stem in stems for layer in layers]


def count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern`, with one group, finds at a name's start."""
    return 1 + max((int(m[1]) for name in names if (m := re.match(pattern, name))), default=-1)
