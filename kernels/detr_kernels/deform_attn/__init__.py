"""Multi-scale deformable attention: the operators, the layer, and the plain torch specification."""

from detr_kernels.deform_attn.backend import choose_backend, explain
from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.deform_attn.fused_reference import deform_attn_fused_reference
from detr_kernels.deform_attn.module import MultiScaleDeformableAttention
from detr_kernels.deform_attn.op import deform_attn
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.deform_attn.sampling import Sampling, sample_nearest

__all__ = [
    "MultiScaleDeformableAttention",
    "Sampling",
    "choose_backend",
    "deform_attn",
    "deform_attn_fused",
    "deform_attn_fused_reference",
    "deform_attn_reference",
    "explain",
    "sample_nearest",
]
