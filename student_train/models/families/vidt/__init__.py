"""ViDT (Song et al., arXiv 2110.03921)."""

from student_train.models.families.vidt.model import Vidt, VidtConfig
from student_train.models.families.vidt.names import official_names
from student_train.models.family import Family

FAMILY = Family(
    config=VidtConfig,
    student=Vidt,
    package=__name__,
    names=official_names,
    marks=("backbone.det_token", "backbone.det_pos_embed"),
    sizes={
        "n_classes": ("class_embed.0.bias", 0, 0),
        "n_queries": ("backbone.det_token", 1, 0),
        "dim": ("transformer.level_embed", 1, 0),
        "ffn_dim": ("transformer.decoder.layers.0.linear1.bias", 0, 0),
    },
)
