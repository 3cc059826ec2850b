"""Names of Atten4Vis/ConditionalDETR, IDEA-Research/DAB-DETR and IDEA-Research/DN-DETR."""

import re

from torch import nn

from student_train.models.naming import backbone_name, rename
from student_train.models.single_scale import SingleScaleStudent

# ours -> official, first fit
_NAMES = [
    (r"^projection\.", "input_proj."),
    (r"^heads\.classes\.0\.", "class_embed."),
    (r"^heads\.boxes\.0\.", "bbox_embed."),
    (r"^queries\.", "query_embed."),
    (r"^anchors\.", "refpoint_embed."),
    (r"^patterns\.", "transformer.patterns."),
    (r"^denoising\.label_embedding\.", "label_enc."),
    (r"^reference\.", "transformer.decoder.ref_point_head."),
    (r"^(en|de)coder\.scale\.", r"transformer.\1coder.query_scale."),
    (r"^decoder\.query_position\.", "transformer.decoder.ref_point_head."),
    (r"^decoder\.size\.", "transformer.decoder.ref_anchor_head."),
    (r"^decoder\.norm\.", "transformer.decoder.norm."),
    (r"^encoder\.(layers\.\d+)\.norm\.", r"transformer.encoder.\1.norm1."),
    (r"^encoder\.(layers\.\d+)\.feed_forward\.norm\.", r"transformer.encoder.\1.norm2."),
    (r"^decoder\.(layers\.\d+)\.feed_forward\.norm\.", r"transformer.decoder.\1.norm3."),
    (r"^(..coder\.layers\.\d+)\.feed_forward\.", r"transformer.\1."),
    (r"^(decoder\.layers\.\d+\.(?:self|cross)_attn)\.out\.", r"transformer.\1.out_proj."),
    (r"^encoder\.", "transformer.encoder."),
    (r"^(decoder\.layers\.\d+\.norm)", r"transformer.\1"),
]
# projections of the decoder's attention stand beside it in the official layer
_PROJECTIONS = {
    "query_content": "qcontent_proj",
    "query_position": "qpos_proj",
    "query_centre": "qpos_sine_proj",
    "key_content": "kcontent_proj",
    "key_position": "kpos_proj",
    "value": "v_proj",
}
_ATTENTION = re.compile(r"^(decoder\.layers\.\d+)\.(self|cross)_attn\.(\w+)\.(\w+)$")


def official_names(student: nn.Module, key: str) -> list[str]:
    """Every official name of our `key`, first the original; none if it has none."""
    assert isinstance(student, SingleScaleStudent)
    if key.startswith("backbone.body."):
        return [backbone_name(student.backbone, key)]
    attention = _ATTENTION.match(key)
    if attention and attention[3] in _PROJECTIONS:
        kind = {"self": "sa", "cross": "ca"}[attention[2]]
        return [f"transformer.{attention[1]}.{kind}_{_PROJECTIONS[attention[3]]}.{attention[4]}"]
    names = rename(_NAMES, key)
    if key.startswith("heads.boxes.") and student.decoder.query_position is not None:
        # a decoder that refines boxes has the head registered in it too, and there first
        return [f"transformer.decoder.{name}" for name in names] + names
    return names
