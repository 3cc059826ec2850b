"""The decoder of Conditional, DAB and DN-DETR: queries attend to each other, then to all of the
image, by content and by place.
"""

from __future__ import annotations

from torch import Tensor, nn

from student_train.models.layers.conditional_attention import (
    ConditionalCrossAttention,
    ConditionalSelfAttention,
)
from student_train.models.layers.encoder import Tokens
from student_train.models.layers.feed_forward import FeedForward
from student_train.models.layers.heads import MLP, LayerHeads
from student_train.models.layers.position import sine_boxes
from student_train.models.layers.recompute import run_layer
from student_train.models.layers.refinement import Place, RefiningDecoder
from student_train.models.output import Prediction


class ConditionalDecoderLayer(nn.Module):
    """Self-attention among queries, conditional attention to the image, feed-forward; norms after
    each sum.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        dropout: float,
        activation: nn.Module,
        first: bool,
    ) -> None:
        super().__init__()
        self.self_attn = ConditionalSelfAttention(dim, n_heads, dropout)
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = ConditionalCrossAttention(dim, n_heads, dropout, first)
        self.dropout2 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, ffn_dim, dropout, activation)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        centre: Tensor,
        memory: Tensor,
        tokens: Tokens,
        blocked: Tensor | None,
    ) -> Tensor:
        """[B, Q, C] to the same shape.

        `position` [B, Q, C] is the queries', `centre` [B, Q, C] the scaled encoding of their
        references, `memory` [B, S, C] the encoder's output; `blocked` [Q, Q] is True where the
        row's query must not see the column's.
        """
        x = self.norm1(x + self.dropout1(self.self_attn(x, position, blocked)))
        found = self.cross_attn(x, position, centre, memory, tokens.position, tokens.mask)
        return self.feed_forward(self.norm2(x + self.dropout2(found)))


class ConditionalDecoder(RefiningDecoder):
    """Layers whose attention is steered by the place of each query's reference.

    The encoded centre is multiplied by a network of the query's state from the second layer on
    (Conditional DETR section 3.3, the transformation T).

    With `anchors` (DAB-DETR section 4) references are boxes: the queries' position is read off them
    in every layer, their sizes stretch the attention, and each layer refines them, with DINO's look
    forward twice (in DAB's code before it had the name). Without, they are points that stay.
    """

    def __init__(
        self,
        n_layers: int,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
        anchors: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            dim,
            n_layers,
            refinement="look_forward_twice" if anchors else "none",
            norm=True,
            eps=1e-3 if anchors else 1e-5,
        )
        self.dim = dim
        self.checkpointing = checkpointing
        self.layers = nn.ModuleList(
            ConditionalDecoderLayer(dim, ffn_dim, n_heads, dropout, activation(), first=not index)
            for index in range(n_layers)
        )
        self.scale = MLP(dim, dim, dim, 2)
        self.query_position = MLP(2 * dim, dim, dim, 2) if anchors else None
        self.size = MLP(dim, dim, 2, 2) if anchors else None

    def forward(
        self,
        content: Tensor,
        reference: Tensor,
        memory: Tensor,
        tokens: Tokens,
        heads: LayerHeads,
        blocked: Tensor | None = None,
        position: Tensor | None = None,
    ) -> list[Prediction]:
        """Predictions of every layer, first to last.

        `content` is [B, Q, C]; `reference` the starting references in 0..1 of the valid image: [B,
        Q, 4] anchors (cx, cy, w, h), or [B, Q, 2] points with the queries' `position` [B, Q, C];
        `memory` is the encoder's output [B, S, C]; `blocked` [Q, Q] hides queries from each other.
        """
        state, place = content, Place(reference, reference)
        predictions = []
        for index, layer in enumerate(self.layers):
            encoded = sine_boxes(place.reference, self.dim).to(state.dtype)
            if self.query_position is not None:
                position = self.query_position(encoded)
            assert position is not None
            centre = encoded[..., : self.dim]
            if index > 0:
                centre = centre * self.scale(state)
            if self.size is not None:
                centre = centre * self._stretch(state, place.reference)
            inputs = (state, position, centre, memory, tokens, blocked)
            state = run_layer(layer, self.checkpointing, *inputs)
            prediction, place = self.predict(state, place, heads, index)
            predictions.append(prediction)
        return predictions

    def _stretch(self, state: Tensor, anchors: Tensor) -> Tensor:
        """Factors [B, Q, C] on the encoded centre: how large the object looks over how large its
        anchor is, height for the half that tells y and width for the half that tells x (DAB-DETR
        section 4.4).
        """
        assert self.size is not None
        wanted = self.size(state).to(anchors.dtype).sigmoid()
        ratio = (wanted / anchors[..., 2:]).flip(-1).to(state.dtype)
        return ratio.repeat_interleave(self.dim // 2, dim=-1)
