"""D-FINE (Peng et al., arXiv 2410.13842), trained its way or as DEIM (Huang et al., 2412.04234)."""

from student_train.models.families.d_fine.model import DFine, DFineConfig
from student_train.models.families.d_fine.names import official_names, settings_from_shapes
from student_train.models.family import Family

FAMILY = Family(
    config=DFineConfig,
    student=DFine,
    package=__name__,
    names=official_names,
    marks=("decoder.enc_score_head.weight", "decoder.pre_bbox_head.layers.0.weight"),
    from_state=settings_from_shapes,
    unsaid={
        "activation": "nothing in a file tells DEIM from D-FINE, and either is wrong as the other: "
        "this one was taken for a D-FINE. Give model.activation=silu for a DEIM, "
        "model.activation=relu if you know that it is none"
    },
)
