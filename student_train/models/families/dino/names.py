"""Names of IDEA-Research/DINO."""

from torch import nn

from student_train.models.families.dino.model import Dino
from student_train.models.naming import backbone_name, layer_head_names, rename

# ours -> official, first fit
_NAMES = [
    (r"^level_embedding$", "transformer.level_embed"),
    (r"^encoder\.layers\.", "transformer.encoder.layers."),
    (r"^decoder\.query_position\.", "transformer.decoder.ref_point_head."),
    (r"^decoder\.", "transformer.decoder."),
    (r"^queries\.content\.", "transformer.tgt_embed."),
    (r"^queries\.project\.", "transformer.enc_output."),
    (r"^queries\.norm\.", "transformer.enc_output_norm."),
    (r"^queries\.boxes\.", "transformer.enc_out_bbox_embed."),
    (r"^queries\.classes\.", "transformer.enc_out_class_embed."),
    (r"^denoising\.label_embedding\.", "label_enc."),
    (r"^neck\.projections\.", "input_proj."),
]


def official_names(student: nn.Module, key: str) -> list[str]:
    """Every official name of our `key`, first the original; none if it has none."""
    assert isinstance(student, Dino)
    if key.startswith("heads."):
        shared = student.config.share_heads
        return layer_head_names(key, student.config.decoder_layers if shared else None)
    if key.startswith("backbone.body."):
        return [backbone_name(student.backbone, key)]
    return rename(_NAMES, key)
