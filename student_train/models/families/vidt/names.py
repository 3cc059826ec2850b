"""Names of naver-ai/vidt."""

import re

from torch import nn

from student_train.models.naming import rename

# ours -> official, first fit; the backbone has the official names
_NAMES = [
    (r"^backbone\.", "backbone."),
    (r"^neck\.projections\.", "input_proj."),
    (r"^project_tokens\.", "tgt_proj."),
    (r"^project_position\.", "query_pos_proj."),
    (r"^reference_points\.", "transformer.reference_points."),
    (r"^level_embedding$", "transformer.level_embed"),
    (r"^decoder\.", "transformer.decoder."),
    (r"^heads\.classes\.", "class_embed."),
    (r"^heads\.boxes\.", "transformer.decoder.bbox_embed."),
]


def official_names(student: nn.Module, key: str) -> list[str]:
    """Every official name of our `key`, first the original; none if it has none."""
    names = rename(_NAMES, key)
    if re.match(r"^heads\.boxes\.", key):
        # registered in the decoder and again beside it
        names += rename([(r"^heads\.boxes\.", "bbox_embed.")], key)
    return names
