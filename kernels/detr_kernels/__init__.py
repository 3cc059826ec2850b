"""Kernels for DETR-style detectors: multi-scale deformable attention in Triton, with a plain torch twin for CPUs.

Needs torch alone; Triton is used where there is a GPU for it. `explain()` says which backend runs and why.
"""

from detr_kernels.deform_attn import (
    MultiScaleDeformableAttention,
    choose_backend,
    deform_attn,
    deform_attn_reference,
    explain,
)
from detr_kernels.errors import ArgumentError, BackendError, KernelError

__all__ = [
    "ArgumentError",
    "BackendError",
    "KernelError",
    "MultiScaleDeformableAttention",
    "choose_backend",
    "deform_attn",
    "deform_attn_reference",
    "explain",
]
