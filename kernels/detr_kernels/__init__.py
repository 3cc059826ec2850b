"""Kernels for DETR-style detectors: multi-scale deformable attention.

In Triton, with a plain torch twin for CPUs and fp64. Needs torch alone; `explain()` says which
backend runs here and why.
"""

from detr_kernels.deform_attn import (
    MultiScaleDeformableAttention,
    Sampling,
    choose_backend,
    deform_attn,
    deform_attn_fused,
    deform_attn_fused_reference,
    deform_attn_reference,
    explain,
    sample_nearest,
)
from detr_kernels.errors import ArgumentError, BackendError, KernelError

__all__ = [
    "ArgumentError",
    "BackendError",
    "KernelError",
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
