"""Multi-scale deformable attention: the operator, its layer, and the plain torch specification."""

from detr_kernels.deform_attn.module import MultiScaleDeformableAttention
from detr_kernels.deform_attn.op import choose_backend, deform_attn, explain
from detr_kernels.deform_attn.reference import deform_attn_reference

__all__ = [
    "MultiScaleDeformableAttention",
    "choose_backend",
    "deform_attn",
    "deform_attn_reference",
    "explain",
]
