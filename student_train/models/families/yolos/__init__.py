"""YOLOS (Fang et al., arXiv 2106.00666)."""

from student_train.models.families.yolos.files import from_state
from student_train.models.families.yolos.model import Yolos, YolosConfig
from student_train.models.families.yolos.names import official_names
from student_train.models.family import Family

FAMILY = Family(
    config=YolosConfig,
    student=Yolos,
    package=__name__,
    names=official_names,
    marks=("backbone.det_token", "backbone.cls_token"),
    sizes={
        # the last logit is no-object
        "n_classes": ("class_embed.layers.2.bias", 0, 1),
        "n_queries": ("backbone.det_token", 1, 0),
    },
    from_state=from_state,
)
