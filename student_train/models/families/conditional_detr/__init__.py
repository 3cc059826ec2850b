"""Conditional DETR (Meng et al., arXiv 2108.06152)."""

from student_train.models.families.conditional_detr.model import (
    ConditionalDetr,
    ConditionalDetrConfig,
)
from student_train.models.families.conditional_detr.names import official_names
from student_train.models.family import Family
from student_train.models.shapes import DENSE_SIZES
from student_train.models.single_scale import stride_of

FAMILY = Family(
    config=ConditionalDetrConfig,
    student=ConditionalDetr,
    package=__name__,
    names=official_names,
    marks=("transformer.decoder.layers.0.ca_qcontent_proj.weight", "query_embed.weight"),
    sizes=DENSE_SIZES | {"n_queries": ("query_embed.weight", 0, 0)},
    from_settings=stride_of,
)
