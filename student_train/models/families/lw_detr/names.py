"""Names of Atten4Vis/LW-DETR, and of roboflow/rf-detr, which has taken them over."""

import re

from torch import nn

from student_train.models.naming import rename

MARKS = ("query_feat.weight", "backbone.0.encoder.pos_embed")
"""parameters that only this family has"""

# ours -> official, first fit
COMMON = [
    (r"^heads\.classes\.0\.", "class_embed."),
    (r"^heads\.boxes\.0\.", "bbox_embed."),
    (r"^queries\.content\.", "query_feat."),
    (r"^queries\.moves\.", "refpoint_embed."),
    (r"^queries\.heads\.(\d+)\.project\.", r"transformer.enc_output.\1."),
    (r"^queries\.heads\.(\d+)\.norm\.", r"transformer.enc_output_norm.\1."),
    (r"^queries\.heads\.(\d+)\.classes\.", r"transformer.enc_out_class_embed.\1."),
    (r"^queries\.heads\.(\d+)\.boxes\.", r"transformer.enc_out_bbox_embed.\1."),
    # the first norm there is the one after the self-attention, the first that is computed
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"transformer.\1.norm1."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"transformer.\1.norm2."),
    (r"^decoder\.query_position\.", "transformer.decoder.ref_point_head."),
    (r"^decoder\.", "transformer.decoder."),
]
_VIT = [(r"^backbone\.", "backbone.0.encoder.")]


def official_names(student: nn.Module, key: str) -> list[str]:
    """The official name of our `key`; none if it has none."""
    return projector_names(key) or rename(COMMON + _VIT, key)


def projector_names(key: str) -> list[str]:
    """The official name of a parameter of the projector; none of another one."""
    if not key.startswith("projector."):
        return []
    # a level is a C2f and a norm
    key = re.sub(r"^projector\.levels\.", "backbone.0.projector.stages.", key)
    key = re.sub(r"^projector\.sampling\.", "backbone.0.projector.stages_sampling.", key)
    key = re.sub(r"\.enter\.", ".cv1.", key)
    key = re.sub(r"\.leave\.", ".cv2.", key)
    key = re.sub(r"\.pairs\.(\d+)\.(\d)\.", lambda m: f".m.{m[1]}.cv{int(m[2]) + 1}.", key)
    return [re.sub(r"\.norm\.", ".bn.", key)]
