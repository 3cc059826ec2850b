"""The deformable decoder: queries attend to each other, then to the image around their boxes, which
are refined.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detr_kernels import MultiScaleDeformableAttention
from student_train.models.encoder import Tokens
from student_train.models.heads import MLP, LayerHeads
from student_train.models.output import Prediction
from student_train.models.position import inverse_sigmoid, sine_boxes


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the image, feed-forward; norms after
    each sum.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_levels: int,
        n_points: int,
        dropout: float,
        backend: str,
    ) -> None:
        super().__init__()
        self.cross_attn = MultiScaleDeformableAttention(
            dim, n_heads, n_levels, n_points, backend=backend
        )
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.dropout2 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.dropout3 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.dropout4 = nn.Dropout(dropout)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        tokens: Tokens,
        blocked: Tensor | None,
    ) -> Tensor:
        """[B, Q, C] to the same shape.

        `position` is [B, Q, C], `reference` [B, Q, L, 4] in 0..1 of each padded level, `memory` [B,
        S, C]; `blocked` [Q, Q] is True where the row's query must not see the column's.
        """
        query = x + position
        seen, _ = self.self_attn(query, query, x, attn_mask=blocked, need_weights=False)
        x = self.norm2(x + self.dropout2(seen))
        found = self.cross_attn(x + position, reference, memory, tokens.shapes, tokens.mask)
        x = self.norm1(x + self.dropout1(found))
        hidden = self.dropout3(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout4(self.linear2(hidden)))


class DeformableDecoder(nn.Module):
    """Layers that refine boxes, with DINO's look forward twice (section 3.5).

    A layer's reference carries no gradient into the layer's own attention, but the box that the
    layer predicts is measured from the previous layer's refined box *with* its gradient, so each
    box head is trained by the next layer's loss too. The head reads the raw state to refine the
    reference and the normed one to predict, as in the official code.
    """

    def __init__(
        self,
        n_layers: int,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_levels: int,
        n_points: int,
        dropout: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(dim, ffn_dim, n_heads, n_levels, n_points, dropout, backend)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.query_position = MLP(2 * dim, dim, dim, 2)

    def forward(
        self,
        content: Tensor,
        boxes: Tensor,
        memory: Tensor,
        tokens: Tokens,
        heads: LayerHeads,
        blocked: Tensor | None = None,
    ) -> list[Prediction]:
        """Predictions of every layer, first to last.

        `content` is [B, Q, C]; `boxes` [B, Q, 4] are the starting references, (cx, cy, w, h) in
        0..1 of the valid image; `memory` is the encoder's output [B, S, C]; `blocked` [Q, Q] hides
        queries from each other.
        """
        scale = tokens.valid_ratios.repeat(1, 1, 2)[:, None]  # [B, 1, L, 4]
        state, reference, start = content, boxes, boxes
        predictions = []
        for index, layer in enumerate(self.layers):
            on_levels = reference[:, :, None] * scale
            place = sine_boxes(on_levels[:, :, 0], self.dim).to(state.dtype)
            state = layer(state, self.query_position(place), on_levels, memory, tokens, blocked)
            normed = self.norm(state)
            change = heads.locate(index, normed).to(start.dtype)
            predictions.append(
                Prediction(
                    heads.classify(index, normed).to(start.dtype),
                    (change + inverse_sigmoid(start)).sigmoid(),
                )
            )
            if index == len(self.layers) - 1:
                break
            refined = heads.locate(index, state).to(start.dtype) + inverse_sigmoid(reference)
            start = refined.sigmoid()
            reference = start.detach()
        return predictions
