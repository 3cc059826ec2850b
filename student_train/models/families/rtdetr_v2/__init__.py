"""RT-DETRv2 (Lv et al., arXiv 2407.17140)."""

from student_train.models.families.rtdetr_v2.model import RtDetrV2, RtDetrV2Config
from student_train.models.families.rtdetr_v2.names import official_names, settings_from_shapes
from student_train.models.family import Family

FAMILY = Family(
    config=RtDetrV2Config,
    student=RtDetrV2,
    package=__name__,
    names=official_names,
    marks=("decoder.enc_score_head.weight",),
    # D-FINE has these names, and edges
    tell=lambda state, settings: "decoder.pre_bbox_head.layers.0.weight" not in state,
    from_state=settings_from_shapes,
)
