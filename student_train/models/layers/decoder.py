"""The deformable decoder: queries attend to each other, then to the image around their boxes, which
are refined.
"""

from __future__ import annotations

from itertools import islice
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from detr_kernels import Sampling
from student_train.models.layers.encoder import LayerSizes, Levels
from student_train.models.layers.heads import MLP, Activation, LayerHeads
from student_train.models.layers.position import sine_boxes
from student_train.models.layers.recompute import run_layer
from student_train.models.layers.refinement import Place, Refinement, RefiningDecoder
from student_train.models.output import Prediction


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the image, feed-forward; norms after
    each sum.
    """

    def __init__(
        self,
        sizes: LayerSizes,
        activation: Activation = F.relu,
        n_self_heads: int | None = None,
        sampling: Sampling = "bilinear",
    ) -> None:
        """The heads of `sizes` are those of both attentions, unless `n_self_heads` differs."""
        super().__init__()
        dim, ffn_dim, dropout = sizes.dim, sizes.ffn_dim, sizes.dropout
        self.activation = activation
        self.cross_attn = sizes.attention(sampling)
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = nn.MultiheadAttention(
            dim, n_self_heads or sizes.n_heads, dropout=dropout, batch_first=True
        )
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
        levels: Levels,
        blocked: Tensor | None,
        groups: int = 1,
    ) -> Tensor:
        """[B, Q, C] to the same shape.

        `position` is [B, Q, C], `reference` [B, Q, L, 2 or 4] in 0..1 of each padded level,
        `memory` [B, S, C]; `blocked` [Q, Q] is True where the row's query must not see the
        column's. With several `groups`, equal parts of the queries one after the other, none sees
        another's.
        """
        query, value = x + position, x
        if groups > 1:
            query, value = (t.unflatten(1, (groups, -1)).flatten(0, 1) for t in (query, value))
        seen, _ = self.self_attn(query, query, value, attn_mask=blocked, need_weights=False)
        x = self.norm2(x + self.dropout2(seen.reshape(x.shape)))
        found = self.cross_attn(x + position, reference, memory, levels.shapes, levels.mask)
        x = self.norm1(x + self.dropout1(found))
        hidden = self.dropout3(self.activation(self.linear1(x)))
        return self.norm3(x + self.dropout4(self.linear2(hidden)))


class DeformableDecoder(RefiningDecoder):
    """Layers that refine boxes: DINO's, Deformable DETR's, H-DETR's, ViDT's and RT-DETR's.

    Beside what a `RefiningDecoder` leaves open they differ in two choices.

    - `box_position`: the queries' position is a network's reading of the current box, anew in every
      layer: of its sine encoding on the padded canvas (`sine`, DINO), or of its four numbers in the
      valid image by `plain_layers` linear layers (`plain`, RT-DETR). Without it the caller gives
      one position for all layers.
    - `predict_input`: the queries are read by a first pair of heads before any layer, and refined
      (ViDT). There is then one prediction more than layers.
    """

    def __init__(
        self,
        n_layers: int,
        sizes: LayerSizes,
        *,
        sampling: Sampling = "bilinear",
        refinement: Refinement = "detached",
        norm: bool = False,
        box_position: Literal["none", "sine", "plain"] = "none",
        plain_layers: int = 2,
        activation: Activation = F.relu,
        predict_input: bool = False,
        eps: float = 1e-5,
        box_eps: float | None = None,
        checkpointing: bool = False,
    ) -> None:
        dim = sizes.dim
        super().__init__(dim, n_layers + predict_input, refinement, norm, eps, box_eps)
        self.dim = dim
        self.checkpointing = checkpointing
        self.predict_input = predict_input
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(sizes, activation, sampling=sampling) for _ in range(n_layers)
        )
        self.box_position = box_position
        self.query_position = None
        if box_position == "sine":
            self.query_position = MLP(2 * dim, dim, dim, 2)
        elif box_position == "plain":
            hidden = 2 * dim if plain_layers == 2 else dim
            self.query_position = MLP(4, hidden, dim, plain_layers, activation)

    def forward(
        self,
        content: Tensor,
        reference: Tensor,
        memory: Tensor,
        levels: Levels,
        heads: LayerHeads,
        blocked: Tensor | None = None,
        position: Tensor | None = None,
        n_layers: int | None = None,
    ) -> list[Prediction]:
        """Predictions of every layer, first to last, or of the first `n_layers`.

        `content` is [B, Q, C]; `reference` the starting references in 0..1 of the valid image, [B,
        Q, 4] (cx, cy, w, h) or [B, Q, 2] (cx, cy); `memory` is the encoder's output [B, S, C];
        `blocked` [Q, Q] hides queries from each other; `position` [B, Q, C] is that of the queries,
        unless it is read off their boxes.
        """
        state, place = content, Place(reference, reference)
        predictions: list[Prediction] = []
        if self.predict_input:
            prediction, place = self.predict(state, place, heads, 0)
            predictions.append(prediction)
        for layer in islice(self.layers, n_layers):
            on_levels = references_on_levels(place.reference, levels)
            if self.query_position is not None:
                read = place.reference
                if self.box_position == "sine":
                    read = sine_boxes(on_levels[:, :, 0], self.dim)
                position = self.query_position(read.to(state.dtype))
            assert position is not None
            inputs = (state, position, on_levels, memory, levels, blocked)
            state = run_layer(layer, self.checkpointing, *inputs)
            prediction, place = self.predict(state, place, heads, len(predictions))
            predictions.append(prediction)
        return predictions


def references_on_levels(reference: Tensor, levels: Levels) -> Tensor:
    """References [B, Q, 2 or 4] in 0..1 of the valid image as such of every padded level, [B, Q, L,
    2 or 4].
    """
    scale = levels.valid_ratios.repeat(1, 1, reference.shape[-1] // 2)
    return reference[:, :, None] * scale[:, None]
