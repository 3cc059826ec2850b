"""DN-DETR (Li et al., arXiv 2203.01305)."""

from student_train.models.families.conditional_detr.names import official_names
from student_train.models.families.dn_detr.model import DnDetr, DnDetrConfig
from student_train.models.family import Family
from student_train.models.shapes import DENSE_SIZES
from student_train.models.single_scale import stride_of

FAMILY = Family(
    config=DnDetrConfig,
    student=DnDetr,
    package=__name__,
    names=official_names,
    marks=("label_enc.weight", "refpoint_embed.weight"),
    sizes=DENSE_SIZES | {"n_queries": ("refpoint_embed.weight", 0, 0)},
    from_settings=stride_of,
)
