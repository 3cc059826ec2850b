"""DINO (Zhang et al., arXiv 2203.03605)."""

from student_train.models.families.dino.model import Dino, DinoConfig
from student_train.models.families.dino.names import official_names
from student_train.models.family import Family
from student_train.models.shapes import DEFORMABLE_SIZES, maps, same_heads

FAMILY = Family(
    config=DinoConfig,
    student=Dino,
    package=__name__,
    names=official_names,
    marks=("label_enc.weight", "transformer.enc_out_class_embed.weight"),
    sizes=DEFORMABLE_SIZES | {"n_queries": ("transformer.tgt_embed.weight", 0, 0)},
    from_state=lambda state: maps(state) | {"share_heads": same_heads(state)},
)
