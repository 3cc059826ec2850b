"""RF-DETR (Robinson et al., arXiv 2511.09554)."""

from student_train.models.families.rf_detr.model import RfDetr, RfDetrConfig
from student_train.models.families.rf_detr.names import official_names
from student_train.models.family import Family

FAMILY = Family(
    config=RfDetrConfig,
    student=RfDetr,
    package=__name__,
    names=official_names,
    marks=("query_feat.weight", "backbone.0.encoder.encoder.layernorm.weight"),
)
