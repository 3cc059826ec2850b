"""Deformable attention as operations that every exporter knows."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detr_kernels import MultiScaleDeformableAttention, deform_attn_reference


class PlainDeformableAttention(nn.Module):
    """What `MultiScaleDeformableAttention` computes, from `grid_sample` and arithmetic alone.

    The kernels' own operators are opaque to ONNX and to programs without this package. Shapes may
    be symbols here: nothing is checked, as the layer that it stands for did.
    """

    def __init__(self, layer: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.n_heads, self.n_levels = layer.n_heads, layer.n_levels
        self.n_points = layer.n_points
        self.sampling_offsets = layer.sampling_offsets
        self.attention_weights = layer.attention_weights
        self.value_proj = layer.value_proj
        self.output_proj = layer.output_proj

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As the layer's own `forward`; `spatial_shapes` are pairs of (possibly symbolic) ints."""
        value = self.value_proj(tokens)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.n_heads, -1))
        grouping = (self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*grouping, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.n_heads, -1))
        weights = weights.softmax(-1).unflatten(-1, grouping[1:])
        centre = reference[:, :, None, :, None, :2]
        if reference.shape[-1] == 2:
            scale = torch.stack(
                [torch.stack([_number(offsets, w), _number(offsets, h)]) for h, w in spatial_shapes]
            )
            locations = centre + offsets / scale[:, None]
        else:
            extent = reference[:, :, None, :, None, 2:]
            locations = centre + offsets * extent * (0.5 / self.n_points)
        sampled = deform_attn_reference(value, spatial_shapes, locations, weights)
        return self.output_proj(sampled)


def _number(like: Tensor, value: int) -> Tensor:
    """A (possibly symbolic) integer as a 0-d tensor."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


def with_plain_attention(model: nn.Module) -> nn.Module:
    """A copy of `model`, in evaluation mode, whose deformable attention exports."""
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, MultiScaleDeformableAttention):
            model.set_submodule(name, PlainDeformableAttention(module))
    return model
