"""Names of roboflow/rf-detr: LW-DETR's, with DINOv2's as transformers has them."""

from torch import nn

from student_train.models.families.lw_detr.names import COMMON, projector_names
from student_train.models.naming import rename

_VIT = "backbone.0.encoder.encoder."
_BLOCK = rf"{_VIT}encoder.layer.\1."
MARKS = ("query_feat.weight", "backbone.0.encoder.encoder.layernorm.weight")
"""parameters that only this family has"""

# ours -> official, first fit
_NAMES = [
    *COMMON,
    (r"^backbone\.embedding\.pos_embed$", f"{_VIT}embeddings.position_embeddings"),
    (
        r"^backbone\.embedding\.patch_embed\.proj\.",
        f"{_VIT}embeddings.patch_embeddings.projection.",
    ),
    (r"^backbone\.embedding\.", f"{_VIT}embeddings."),
    (r"^backbone\.blocks\.(\d+)\.attn\.proj\.", f"{_BLOCK}attention.output.dense."),
    (r"^backbone\.blocks\.(\d+)\.attn\.", f"{_BLOCK}attention.attention."),
    (r"^backbone\.blocks\.(\d+)\.ls(\d)\.gamma$", rf"{_BLOCK}layer_scale\2.lambda1"),
    (r"^backbone\.blocks\.(\d+)\.", _BLOCK),
    (r"^backbone\.norm\.", f"{_VIT}layernorm."),
]


def official_names(student: nn.Module, key: str) -> list[str]:
    """The official name of our `key`; none if it has none."""
    return projector_names(key) or rename(_NAMES, key)
