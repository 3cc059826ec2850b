"""RF-DETR (Robinson et al., arXiv 2511.09554)."""

from student_train.models.families.rf_detr.files import SIZES, from_settings, from_state
from student_train.models.families.rf_detr.model import RfDetr, RfDetrConfig
from student_train.models.families.rf_detr.names import MARKS, official_names
from student_train.models.family import Family

FAMILY = Family(
    config=RfDetrConfig,
    student=RfDetr,
    package=__name__,
    names=official_names,
    marks=MARKS,
    sizes=SIZES,
    from_state=from_state,
    from_settings=from_settings,
)
