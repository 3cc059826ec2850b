"""Names of fundamentalvision/Deformable-DETR and HDETR/H-Deformable-DETR."""

import re

from torch import nn

from student_train.models.families.deformable_detr.model import DeformableDetr
from student_train.models.naming import layer_head_names, rename

# ours -> official, first fit
_NAMES = [
    (r"^level_embedding$", "transformer.level_embed"),
    (r"^encoder\.layers\.", "transformer.encoder.layers."),
    (r"^decoder\.layers\.", "transformer.decoder.layers."),
    (r"^queries\.content\.", "query_embed."),
    (r"^queries\.project\.", "transformer.enc_output."),
    (r"^queries\.norm\.", "transformer.enc_output_norm."),
    (r"^queries\.embedding\.project\.", "transformer.pos_trans."),
    (r"^queries\.embedding\.norm\.", "transformer.pos_trans_norm."),
    (r"^neck\.projections\.", "input_proj."),
    (r"^backbone\.body\.", "backbone.0.body."),
]


def official_names(student: nn.Module, key: str) -> list[str]:
    """Every official name of our `key`, first the original; none if it has none."""
    assert isinstance(student, DeformableDetr)
    # the encoder's heads stand behind the decoder's
    key = re.sub(r"^queries\.(classes|boxes)\.", rf"heads.\1.{student.config.decoder_layers}.", key)
    return layer_head_names(key, None) or rename(_NAMES, key)
