"""Deformable attention as operations that every exporter knows."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detr_kernels import (
    MultiScaleDeformableAttention,
    deform_attn_reference,
    sample_nearest,
)


class PlainDeformableAttention(nn.Module):
    """What `MultiScaleDeformableAttention` computes, from `grid_sample` and arithmetic alone.

    The kernels' own operators are opaque to ONNX and to programs without this package. Shapes may
    be symbols here: nothing is checked, as the layer that it stands for did.
    """

    def __init__(self, layer: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As the layer's own `forward`; `spatial_shapes` are pairs of (possibly symbolic) ints."""
        value, levels, offsets, logits, reference = self.layer.inputs(
            query, reference, tokens, spatial_shapes, padding_mask
        )
        assert not isinstance(levels, Tensor)
        weights = logits.flatten(3).softmax(-1).unflatten(-1, logits.shape[3:])
        centre = reference[:, :, None, :, None, :2]
        if reference.shape[-1] == 2:
            scale = torch.stack(
                [torch.stack([_number(offsets, w), _number(offsets, h)]) for h, w, *_ in levels]
            )
            locations = centre + offsets / scale[:, None]
        else:
            extent = reference[:, :, None, :, None, 2:]
            locations = centre + offsets * extent * (0.5 / offsets.shape[4])
        nearest = self.layer.sampling == "nearest"
        sample = sample_nearest if nearest else deform_attn_reference
        return self.layer.output_proj(sample(value, levels, locations, weights))


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
