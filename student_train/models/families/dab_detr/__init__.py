"""DAB-DETR (Liu et al., arXiv 2201.12329)."""

from student_train.models.families.conditional_detr.names import official_names
from student_train.models.families.dab_detr.model import DabDetr, DabDetrConfig
from student_train.models.family import Family
from student_train.models.shapes import DENSE_SIZES
from student_train.models.single_scale import stride_of

FAMILY = Family(
    config=DabDetrConfig,
    student=DabDetr,
    package=__name__,
    names=official_names,
    marks=("refpoint_embed.weight", "transformer.decoder.ref_anchor_head.layers.0.weight"),
    tell=lambda state, settings: "label_enc.weight" not in state,
    sizes=DENSE_SIZES
    | {
        "n_queries": ("refpoint_embed.weight", 0, 0),
        "n_patterns": ("transformer.patterns.weight", 0, 0),
    },
    from_settings=stride_of,
)
