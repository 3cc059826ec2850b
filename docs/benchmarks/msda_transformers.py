"""transformers' deformable attention as a peer of `python -m detr_kernels.bench`.

PYTHONPATH=docs/benchmarks python -m detr_kernels.bench --peer msda_transformers:deform_attn
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.models.deformable_detr.modeling_deformable_detr import (
    MultiScaleDeformableAttention,
)

_layer = MultiScaleDeformableAttention()


def deform_attn(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """As `detr_kernels.deform_attn`."""
    sizes = torch.tensor(spatial_shapes)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])
    return _layer(value, sizes, list(spatial_shapes), starts, locations, weights, 64)
