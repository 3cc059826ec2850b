"""Two-stage Deformable DETR (Zhu et al., arXiv 2010.04159), plain or with tricks."""

from student_train.models.families.deformable_detr.files import from_state, second_queries
from student_train.models.families.deformable_detr.model import DeformableDetr, DeformableDetrConfig
from student_train.models.families.deformable_detr.names import official_names
from student_train.models.family import Family
from student_train.models.shapes import DEFORMABLE_SIZES

FAMILY = Family(
    config=DeformableDetrConfig,
    student=DeformableDetr,
    package=__name__,
    names=official_names,
    marks=("transformer.pos_trans.weight",),
    tell=lambda state, settings: not second_queries(state, settings),
    sizes=DEFORMABLE_SIZES,
    from_state=from_state,
)
