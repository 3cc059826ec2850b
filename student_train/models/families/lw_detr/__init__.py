"""LW-DETR (Chen et al., arXiv 2406.03459)."""

from student_train.models.families.lw_detr.files import SIZES, from_state
from student_train.models.families.lw_detr.model import LwDetr, LwDetrConfig
from student_train.models.families.lw_detr.names import MARKS, official_names
from student_train.models.family import Family

FAMILY = Family(
    config=LwDetrConfig,
    student=LwDetr,
    package=__name__,
    names=official_names,
    marks=MARKS,
    sizes=SIZES,
    from_state=from_state,
)
