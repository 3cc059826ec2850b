"""DETR's encoder: every cell of one feature map sees every other."""

from __future__ import annotations

from torch import Tensor, nn

from student_train.models.layers.encoder import Tokens
from student_train.models.layers.feed_forward import FeedForward
from student_train.models.layers.heads import MLP
from student_train.models.layers.recompute import run_layer


class DenseEncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network; each added to its input and normed after."""

    def __init__(
        self, dim: int, ffn_dim: int, n_heads: int, dropout: float, activation: nn.Module
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout, activation)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """[B, S, C] to the same shape; `mask` [B, S] is True on padding."""
        query = x + position
        seen, _ = self.self_attn(query, query, x, key_padding_mask=mask, need_weights=False)
        return self.feed_forward(self.norm(x + self.dropout(seen)))


class DenseEncoder(nn.Module):
    """A stack of layers. DETR appendix A.3; with `scaled_position`, positions are multiplied by a
    network of each cell's state, one for all layers (DAB-DETR's official code).
    """

    def __init__(
        self,
        n_layers: int,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
        scaled_position: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseEncoderLayer(dim, ffn_dim, n_heads, dropout, activation()) for _ in range(n_layers)
        )
        self.scale = MLP(dim, dim, dim, 2) if scaled_position else None
        self.checkpointing = checkpointing

    def forward(self, tokens: Tokens) -> Tensor:
        """The tokens' content after all layers, [B, S, C]."""
        x = tokens.content
        for layer in self.layers:
            position = tokens.position
            if self.scale is not None:
                position = position * self.scale(x)
            x = run_layer(layer, self.checkpointing, x, position, tokens.mask)
        return x
