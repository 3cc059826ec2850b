"""Under which names the official code of each family stores our parameters.

A family's table is `names_FAMILY.py`; import and export are both loops over it, so one can't drift
from the other.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from student_train.errors import CheckpointError
from student_train.models.config import StudentConfig
from student_train.models.families.d_fine import names as d_fine
from student_train.models.families.lw_detr import names as names_lw_detr
from student_train.models.families.rf_detr import names as names_rf_detr
from student_train.models.families.rtdetr_v2 import names as rtdetr_v2
from student_train.models.official import (
    names_deformable,
    names_dino,
    names_single_scale,
    names_vidt,
    names_yolos,
)

Names = Callable[[nn.Module, str], list[str]]

_NAMES: dict[str, Names] = {
    "dino": names_dino.official_names,
    "deformable_detr": names_deformable.official_names,
    "h_detr": names_deformable.official_names,
    "conditional_detr": names_single_scale.official_names,
    "dab_detr": names_single_scale.official_names,
    "dn_detr": names_single_scale.official_names,
    "yolos": names_yolos.official_names,
    "vidt": names_vidt.official_names,
    "lw_detr": names_lw_detr.official_names,
    "rf_detr": names_rf_detr.official_names,
    "rtdetr_v2": rtdetr_v2.official_names,
    "d_fine": d_fine.official_names,
}
# parameters that only one family has
_FAMILIES = {
    "dino": ("label_enc.weight", "transformer.enc_out_class_embed.weight"),
    "dn_detr": ("label_enc.weight", "refpoint_embed.weight"),
    "dab_detr": ("refpoint_embed.weight", "transformer.decoder.ref_anchor_head.layers.0.weight"),
    "conditional_detr": ("transformer.decoder.layers.0.ca_qcontent_proj.weight",),
    "deformable_detr": ("transformer.pos_trans.weight",),
    "rtdetr_v2": ("decoder.enc_score_head.weight", "backbone.conv1.conv1_1.conv.weight"),
    "d_fine": ("decoder.enc_score_head.weight", "decoder.pre_bbox_head.layers.0.weight"),
    "yolos": ("backbone.det_token", "backbone.cls_token"),
    "vidt": ("backbone.det_token", "backbone.det_pos_embed"),
    "lw_detr": ("query_feat.weight", "backbone.0.encoder.pos_embed"),
    "rf_detr": ("query_feat.weight", "backbone.0.encoder.encoder.layernorm.weight"),
}


def detect_family(state: Mapping[str, Tensor]) -> str:
    """Which family's official code wrote a state dict: `dino`, `dn_detr`, `deformable_detr` ...

    Raises CheckpointError if it is none of the known ones.
    """
    for family, marks in _FAMILIES.items():
        if all(mark in state for mark in marks):
            return family
    raise CheckpointError(
        f"no known detector wrote these {len(state)} parameters, of which the first is "
        f"{next(iter(state), 'none')!r}; known are {', '.join(_FAMILIES)}, as their official "
        "repositories store them"
    )


def official_names(student: nn.Module, key: str) -> list[str]:
    """Every name under which the official code stores our parameter or buffer `key`; first the
    original.

    Raises CheckpointError for a student whose family has no official names here.
    """
    config = getattr(student, "config", None)
    if not isinstance(config, StudentConfig) or config.family not in _NAMES:
        raise CheckpointError(f"no official names are known for a {type(student).__name__}")
    names = _NAMES[config.family](student, key)
    if not names:
        raise CheckpointError(f"{type(student).__name__} has no official name for {key}")
    return names
