"""The attention layer of Deformable DETR and its descendants, with the official parameter names."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detr_kernels.deform_attn.fused_op import deform_attn_fused
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
        n_points: int = 4,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if dim % n_heads:
            raise ArgumentError(f"dim: expected a multiple of n_heads={n_heads}, got {dim}")
        self.dim = dim
        self.n_heads = n_heads
        self.n_levels = n_levels
        self.n_points = n_points
        self.backend = backend
        samples = n_heads * n_levels * n_points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The official start: head i looks along direction i, its point k at k + 1 pixels."""
        angles = torch.arange(self.n_heads, dtype=torch.float32) * (2.0 * math.pi / self.n_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # [H, 2]
        # from the unit circle out to the square around it: steps of whole pixels
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.n_points + 1, dtype=torch.float32)
        bias = directions[:, None, None, :] * steps[:, None]  # [H, 1, P, 2]
        bias = bias.expand(-1, self.n_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
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
        batch, n_queries, _ = query.shape
        value = self.value_proj(tokens)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.n_heads, -1))  # [B, S, H, D]
        grouping = (self.n_heads, self.n_levels, self.n_points)
        offsets = self._offsets(query).view(batch, n_queries, *grouping, 2)
        logits = self.attention_weights(query).view(batch, n_queries, *grouping)
        sampled = deform_attn_fused(
            value, spatial_shapes, offsets, logits, reference, backend=self.backend
        )
        return self.output_proj(sampled)

    def _offsets(self, query: Tensor) -> Tensor:
        # the one projection that autocast leaves alone: offsets of bf16 move the samples by up to
        # 1/256 of their distance, which puts 8 to 15 % of error into the offsets' own gradient
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
