"""Conditional attention: what a query looks for (content) and where it looks (position) are
projected apart.

Conditional DETR section 3.3 (Meng et al., ICCV 2021). Among queries content and position are added,
as in DETR. Between queries and image they stand side by side in every head, so the similarity is
the sum of one of contents and one of places: keys and queries are twice as wide as values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attend(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Softmax attention of every head, joined again: [B, Q, H x V].

    `query` is [B, Q, H, E], `key` [B, S, H, E], `value` [B, S, H, V]; `seen` broadcasts to [B, H,
    Q, S] and is True where the row's query sees the column's key. E and V may differ.
    """
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropout)
    return found.transpose(1, 2).flatten(2)


class ConditionalSelfAttention(nn.Module):
    """Queries see each other; their contents and positions have projections of their own."""

    def __init__(self, dim: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.query_content = nn.Linear(dim, dim)
        self.query_position = nn.Linear(dim, dim)
        self.key_content = nn.Linear(dim, dim)
        self.key_position = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = _zero_bias(nn.Linear(dim, dim))

    def forward(self, content: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """[B, Q, C] to the same shape; `blocked` [Q, Q] is True where the row's query must not see
        the column's.
        """
        query = self.query_content(content) + self.query_position(position)
        key = self.key_content(content) + self.key_position(position)
        value = self.value(content)
        query, key, value = (x.unflatten(-1, (self.n_heads, -1)) for x in (query, key, value))
        seen = None if blocked is None else ~blocked
        dropout = self.dropout if self.training else 0.0
        return self.out(attend(query, key, value, seen, dropout))


class ConditionalCrossAttention(nn.Module):
    """Queries see the image: heads compare (content, place of the reference) with (content, place
    of the cell).
    """

    def __init__(self, dim: int, n_heads: int, dropout: float = 0.0, first: bool = False) -> None:
        """`first`: of the first layer, whose queries have no content yet: the queries' and the
        cells' positions are also added to their contents.
        """
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.query_content = nn.Linear(dim, dim)
        self.query_position = nn.Linear(dim, dim) if first else None
        self.query_centre = nn.Linear(dim, dim)
        self.key_content = nn.Linear(dim, dim)
        self.key_position = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = _zero_bias(nn.Linear(dim, dim))

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        centre: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """[B, Q, C] to the same shape.

        `content` and `position` are the queries', `centre` [B, Q, C] is the (scaled) encoding of
        their references; `memory` and `memory_position` are [B, S, C]; `mask` [B, S] is True on
        padding.
        """
        query, key = self.query_content(content), self.key_content(memory)
        key_place = self.key_position(memory_position)
        if self.query_position is not None:
            query = query + self.query_position(position)
            key = key + key_place
        queries = self._side_by_side(query, self.query_centre(centre))
        keys = self._side_by_side(key, key_place)
        value = self.value(memory).unflatten(-1, (self.n_heads, -1))
        dropout = self.dropout if self.training else 0.0
        return self.out(attend(queries, keys, value, ~mask[:, None, None], dropout))

    def _side_by_side(self, content: Tensor, place: Tensor) -> Tensor:
        """[B, N, C] twice to [B, N, H, 2 C / H]."""
        split = [x.unflatten(-1, (self.n_heads, -1)) for x in (content, place)]
        return torch.cat(split, dim=-1)


def _zero_bias(linear: nn.Linear) -> nn.Linear:
    """As torch's attention starts its last projection."""
    nn.init.zeros_(linear.bias)
    return linear
