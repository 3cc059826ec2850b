"""The two-layer network that follows every attention of a transformer."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Wide, activated, narrow again; added to its input and normed after."""

    def __init__(self, dim: int, hidden: int, dropout: float, activation: nn.Module) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.activation = activation
        self.dropout1 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout2 = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same shape."""
        hidden = self.dropout1(self.activation(self.linear1(x)))
        return self.norm(x + self.dropout2(self.linear2(hidden)))
