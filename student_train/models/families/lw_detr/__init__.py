"""LW-DETR (Chen et al., arXiv 2406.03459)."""

from student_train.models.families.lw_detr.model import LwDetr, LwDetrConfig
from student_train.models.families.lw_detr.names import official_names
from student_train.models.family import Family

FAMILY = Family(
    config=LwDetrConfig,
    student=LwDetr,
    package=__name__,
    names=official_names,
    marks=("query_feat.weight", "backbone.0.encoder.pos_embed"),
)
