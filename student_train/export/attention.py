"""Deformable attention as operations that every exporter and every runtime knows."""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from detr_kernels import MultiScaleDeformableAttention, deform_attn_reference
from student_train.models.backbones.frozen_norm import FrozenBatchNorm
from student_train.models.fusing import fuse_norms

Sampler = Literal["gather", "grid_sample"]
"""how maps are read between their cells: by index and arithmetic, or by an operator of its own"""

SAMPLERS: tuple[Sampler, ...] = ("gather", "grid_sample")


class PlainDeformableAttention(nn.Module):
    """What `MultiScaleDeformableAttention` computes, from plain operations alone.

    The kernels' own operators are opaque to ONNX and to programs without this package. Shapes may
    be symbols here: nothing is checked, as the layer that it stands for did.
    """

    def __init__(self, layer: MultiScaleDeformableAttention, sampler: Sampler = "gather") -> None:
        super().__init__()
        self.layer = layer
        self.sampler = sampler

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
        sides = _table(offsets, [(w, h) for h, w, *_ in levels])
        if reference.shape[-1] == 2:
            locations = centre + offsets / sides[:, None]
        else:
            extent = reference[:, :, None, :, None, 2:]
            locations = centre + offsets * extent * (0.5 / offsets.shape[4])
        if self.layer.sampling == "nearest":
            found = _nearest(value, levels, sides, locations, weights)
        elif self.sampler == "grid_sample":
            found = deform_attn_reference(value, levels, locations, weights)
        else:
            found = _bilinear(value, levels, sides, locations, weights)
        return self.layer.output_proj(found)


def _bilinear(
    value: Tensor,
    levels: Sequence[Sequence[int]],
    sides: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """`deform_attn_reference`, all levels at once: of each sample the four cells around it, picked
    from the flattened maps by their number and weighed by how near they are.

    `value` is [B, S, H, D], `locations` [B, Q, H, L, P, 2] in 0..1, `weights` [B, Q, H, L, P],
    `sides` [L, 2] the levels' widths and heights.
    """
    rows = _Rows(value, levels)
    place = locations * sides[:, None] - 0.5
    first = place.floor()
    second = first + 1
    after = place - first
    before = 1 - after
    edge = sides[:, None]
    # of the cell before a place and the one after it: number within the map, and nearness, which
    # is 0 outside of it
    bounded, near = [], []
    for cell, share in ((first, before), (second, after)):
        inside = (cell >= 0) & (cell < edge)
        bounded.append(torch.minimum(cell.clamp(min=0), edge - 1).to(torch.int32))
        near.append(share * inside.to(share.dtype))
    total: Tensor | None = None
    for below, y in zip(bounded, near, strict=True):
        row = rows.row(below[..., 1])
        weighed = weights * y[..., 1]
        for right, x in zip(bounded, near, strict=True):
            found = rows.weighed(row + right[..., 0], weighed * x[..., 0])
            total = found if total is None else total + found
    assert total is not None
    return total


def _nearest(
    value: Tensor,
    levels: Sequence[Sequence[int]],
    sides: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """`detr_kernels.sample_nearest`, all levels at once; columns are bounded by the height too."""
    cell = (locations * sides[:, None] + 0.5).trunc().clamp(min=0)
    last = torch.stack((torch.minimum(sides[:, 0], sides[:, 1]), sides[:, 1]), -1) - 1
    cell = torch.minimum(cell, last[:, None]).to(torch.int32)
    rows = _Rows(value, levels)
    return rows.weighed(rows.row(cell[..., 1]) + cell[..., 0], weights)


class _Rows:
    """The cells of all images, heads and levels as rows of one table, to be picked by number."""

    def __init__(self, value: Tensor, levels: Sequence[Sequence[int]]) -> None:
        batch, cells, heads, dim = value.shape
        self.table = value.transpose(1, 2).reshape(-1, dim)  # [B * H * S, D]
        head = torch.arange(batch * heads, dtype=torch.int32, device=value.device) * cells
        self.head = head.view(batch, 1, heads, 1, 1)
        starts, end = [], 0
        for h, w, *start in levels:
            starts.append((w, start[0] if start else end))
            end = end + h * w
        numbers = _table(value, starts, torch.int32)
        self.width, self.start = numbers[:, :1], numbers[:, 1:]

    def row(self, y: Tensor) -> Tensor:
        """Where in the table the rows `y` [B, Q, H, L, P] of each level's map begin."""
        return self.head + self.start + y * self.width

    def weighed(self, number: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums [B, Q, H * D] of the table's rows [B, Q, H, L, P]."""
        found = F.embedding(number.flatten(3), self.table)  # [B, Q, H, L * P, D]
        return (weights.flatten(3)[..., None, :] @ found).flatten(2)


def _table(like: Tensor, rows: Sequence[Sequence[int]], dtype: torch.dtype | None = None) -> Tensor:
    """Rows of (possibly symbolic) integers as a tensor."""
    kind = like.dtype if dtype is None else dtype

    def number(value: int) -> Tensor:
        return torch.full((), value, dtype=kind, device=like.device)

    return torch.stack([torch.stack([number(value) for value in row]) for row in rows])


def exportable(model: nn.Module, sampler: Sampler = "gather") -> nn.Module:
    """A copy of `model`, in evaluation mode, of plain operations: deformable attention written
    out, batch norms in their convolutions, without what only training does.
    """
    model = copy.deepcopy(model).eval()
    fuse_norms(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, MultiScaleDeformableAttention):
            model.set_submodule(name, PlainDeformableAttention(module, sampler))
        elif isinstance(module, nn.BatchNorm2d | FrozenBatchNorm):
            model.set_submodule(name, _Affine(module))
        elif isinstance(module, nn.Dropout | StochasticDepth):
            model.set_submodule(name, nn.Identity())
        elif hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return model


class _Affine(nn.Module):
    """A batch norm with no convolution before it, as a product and a sum."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d | FrozenBatchNorm) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        self.register_buffer("scale", scale.detach()[:, None, None])
        self.register_buffer("shift", shift.detach()[:, None, None])
        self.act = getattr(norm, "act", None) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        return self.act(x * self.scale + self.shift)
