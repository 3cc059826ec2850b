"""The attention layer of Deformable DETR and its descendants, with the official parameter names."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.deform_attn.fused_reference import attention_weights, sampling_locations
from detr_kernels.deform_attn.levels import shape_rows
from detr_kernels.deform_attn.precision import exact_dtype
from detr_kernels.deform_attn.sampling import PointLayout, Sampling, sample_nearest
from detr_kernels.errors import ArgumentError


class MultiScaleDeformableAttention(nn.Module):
    """Queries attend to a few sampled points of every feature level (arXiv 2010.04159, 4.1).

    Parameters `sampling_offsets`, `attention_weights`, `value_proj` and `output_proj` carry the
    names and shapes of the official `MSDeformAttn`, so its checkpoints load as they are.
    """

    def __init__(
        self,
        dim: int = 256,
        n_heads: int = 8,
        n_levels: int = 4,
        n_points: int | Sequence[int] = 4,
        *,
        backend: str = "auto",
        projections: bool = True,
        sampling: Sampling = "bilinear",
    ) -> None:
        """n_points: of every level, or one number a level.
        projections: whether tokens are projected to values, and what is sampled to the output.
            Without them the channels of the tokens are cut into heads as they are (D-FINE).
        sampling: `nearest` reads one pixel a sample, on any device in plain torch; the offsets are
            frozen then, for nothing trains them. `backend` is not looked at.
        """
        super().__init__()
        if dim % n_heads:
            raise ArgumentError(f"dim: expected a multiple of n_heads={n_heads}, got {dim}")
        points = (n_points,) * n_levels if isinstance(n_points, int) else tuple(n_points)
        if len(points) != n_levels or min(points) < 1:
            raise ArgumentError(
                f"n_points: expected a number from 1, or one for each of {n_levels} levels, "
                f"got {n_points}"
            )
        if sampling not in ("bilinear", "nearest"):
            raise ArgumentError(f"sampling: expected bilinear or nearest, got {sampling!r}")
        self.dim = dim
        self.n_heads = n_heads
        self.n_levels = n_levels
        self.layout = PointLayout(points)
        self.backend = backend
        self.sampling = sampling
        samples = n_heads * sum(points)
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim) if projections else nn.Identity()
        self.output_proj = nn.Linear(dim, dim) if projections else nn.Identity()
        self.reset_parameters()
        if sampling == "nearest":
            self.sampling_offsets.requires_grad_(False)

    def reset_parameters(self) -> None:
        """The official start: head i looks along direction i, its point k at k + 1 pixels."""
        angles = torch.arange(self.n_heads, dtype=torch.float32) * (2.0 * math.pi / self.n_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # [H, 2]
        # from the unit circle out to the square around it: steps of whole pixels
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.cat([torch.arange(1.0, count + 1) for count in self.layout.points])
        bias = directions[:, None, :] * steps[:, None]  # [H, points of all levels, 2]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            if isinstance(projection, nn.Linear):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        tokens: Tensor,
        spatial_shapes: Tensor | Sequence[Sequence[int]],
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from `query` to `tokens`.

        query: [B, Q, C], position already added.
        reference: [B, Q, L, 2] (x, y) or [B, Q, L, 4] (cx, cy, w, h), 0..1 across each level's
            padded map. Offsets count the level's pixels around a point; around a box, an offset of
            P reaches its edge.
        tokens: [B, S, C], the levels' maps flattened and concatenated.
        spatial_shapes: (h, w) of every level, S = sum of h * w.
        padding_mask: [B, S] bool, True where a token is padding: its value counts as zero.

        Returns [B, Q, C]. Raises ArgumentError for shapes that do not fit together.
        """
        self._check(query, reference, tokens, padding_mask)
        inputs = self.inputs(query, reference, tokens, spatial_shapes, padding_mask)
        if self.sampling == "nearest":
            return self.output_proj(_sample_nearest(*inputs))
        return self.output_proj(deform_attn_fused(*inputs, backend=self.backend))

    def inputs(
        self,
        query: Tensor,
        reference: Tensor,
        tokens: Tensor,
        spatial_shapes: Tensor | Sequence[Sequence[int]],
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | Sequence[Sequence[int]], Tensor, Tensor, Tensor]:
        """What `deform_attn_fused` takes, from what `forward` does, which is not checked."""
        value = self.value_proj(tokens)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.n_heads, -1))  # [B, S, H, D]
        layout = self.layout
        grouping = (self.n_heads, len(layout.source), layout.each)
        offsets = self._offsets(query).unflatten(-1, (*grouping, 2))
        logits = self.attention_weights(query).unflatten(-1, grouping)
        return (
            value,
            layout.levels(spatial_shapes),
            layout.offsets(offsets, reference.shape[-1] == 4),
            logits,
            layout.references(reference),
        )

    def _offsets(self, query: Tensor) -> Tensor:
        # the one projection that autocast leaves alone: offsets of bf16 move the samples by up to
        # 1/256 of their distance, which puts 8 to 15 % of error into the offsets' own gradient
        if torch.compiler.is_exporting():
            # no autocast there, and exporters would keep the block as an operation of its own
            return self.sampling_offsets(query)
        with torch.autocast(query.device.type, enabled=False):
            return self.sampling_offsets(query.to(self.sampling_offsets.weight.dtype))

    def _check(
        self, query: Tensor, reference: Tensor, tokens: Tensor, padding_mask: Tensor | None
    ) -> None:
        for name, tensor, axes in (("query", query, "[B, Q, C]"), ("tokens", tokens, "[B, S, C]")):
            if tensor.ndim != 3 or tensor.shape[-1] != self.dim:
                raise ArgumentError(
                    f"{name}: expected {axes} with C={self.dim}, got {list(tensor.shape)}"
                )
        batch, n_queries, _ = query.shape
        places = (batch, n_queries, self.n_levels)
        if tuple(reference.shape) not in ((*places, 2), (*places, 4)):
            raise ArgumentError(
                f"reference: expected [B, Q, L, 2] or [B, Q, L, 4] with B={batch}, Q={n_queries}, "
                f"L={self.n_levels}, got {list(reference.shape)}"
            )
        if padding_mask is not None and (
            padding_mask.shape != tokens.shape[:2] or padding_mask.dtype != torch.bool
        ):
            raise ArgumentError(
                f"padding_mask: expected bool {list(tokens.shape[:2])}, True where a token is "
                f"padding, got {padding_mask.dtype} {list(padding_mask.shape)}"
            )


def _sample_nearest(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[Sequence[int]],
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
) -> Tensor:
    exact, rows = exact_dtype(value), shape_rows(spatial_shapes)
    sizes = torch.tensor([row[:2] for row in rows], device=value.device)
    locations = sampling_locations(reference.to(exact), offsets.to(exact), sizes)
    return sample_nearest(value, rows, locations, attention_weights(logits.to(exact)))
