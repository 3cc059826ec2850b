"""The students: a folder a family, and its name in the table below.

`student_train.models.family` says what is in a folder.
"""

from importlib import import_module

from student_train.models.family import Family

_FOLDERS = (
    "conditional_detr",
    "dab_detr",
    "dn_detr",
    "yolos",
    "vidt",
    "deformable_detr",
    "h_detr",
    "dino",
    "rtdetr_v2",
    "d_fine",
    "lw_detr",
    "rf_detr",
)

FAMILIES: dict[str, Family] = {
    name: import_module(f"{__name__}.{name}").FAMILY for name in _FOLDERS
}
"""every family by name"""
