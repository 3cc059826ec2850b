"""H-Deformable-DETR (Jia et al., arXiv 2207.13080)."""

from student_train.models.families.deformable_detr.files import from_state, second_queries
from student_train.models.families.deformable_detr.names import official_names
from student_train.models.families.h_detr.files import from_settings
from student_train.models.families.h_detr.model import HDetr, HDetrConfig
from student_train.models.family import Family
from student_train.models.shapes import DEFORMABLE_SIZES

FAMILY = Family(
    config=HDetrConfig,
    student=HDetr,
    package=__name__,
    names=official_names,
    marks=("transformer.pos_trans.weight",),
    tell=lambda state, settings: second_queries(state, settings) > 0,
    sizes=DEFORMABLE_SIZES,
    from_state=from_state,
    from_settings=from_settings,
)
