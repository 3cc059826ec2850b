"""D-FINE's decoder: boxes as distributions of their edges, refined from layer to layer.

Peng et al., ICLR 2025, section 3.1, and Peterande/D-FINE, `dfine_decoder.py`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from detr_kernels import MultiScaleDeformableAttention
from student_train.models.layers.decoder import references_on_levels
from student_train.models.layers.edge_distribution import bin_distances, move_edges
from student_train.models.layers.encoder import Levels
from student_train.models.layers.heads import MLP, Activation, LayerHeads, box_head
from student_train.models.layers.position import move_reference
from student_train.models.layers.recompute import run_layer
from student_train.models.output import EdgeDistributions, Prediction

_TOP = 4
"""most likely bins of an edge that tell how sure it is"""
_LARGEST = 65504.0
"""of float16"""


class Gateway(nn.Module):
    """Two states weighed channel by channel against each other, in place of their sum."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """[B, Q, C] both, and the result."""
        first, second = self.gate(torch.cat((before, after), -1)).sigmoid().chunk(2, -1)
        return self.norm(first * before + second * after)


class LocationQuality(nn.Module):
    """How sure a box is of its edges, as a change of all its class logits (LQE; Generalized Focal
    Loss V2, Li et al., CVPR 2021).
    """

    def __init__(self, activation: Activation, hidden: int = 64) -> None:
        super().__init__()
        self.read = MLP(4 * (_TOP + 1), hidden, 1, 2, activation)
        last = self.read.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, edges: Tensor) -> Tensor:
        """Distributions of edges, [B, Q, 4, N + 1], to [B, Q, 1]."""
        likely = edges.topk(_TOP, -1).values
        return self.read(torch.cat((likely, likely.mean(-1, keepdim=True)), -1).flatten(2))


class DFineDecoderLayer(nn.Module):
    """Self-attention among queries, sampling of the memory, feed-forward; norms after each sum."""

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_points: tuple[int, ...],
        dropout: float,
        backend: str,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.self_attn = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = MultiScaleDeformableAttention(
            dim, n_heads, len(n_points), n_points, backend=backend, projections=False
        )
        self.dropout2 = nn.Dropout(dropout)
        self.gateway = Gateway(dim)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.dropout3 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.dropout4 = nn.Dropout(dropout)
        self.norm3 = nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        boxes: Tensor,
        memory: Levels,
        blocked: Tensor | None,
    ) -> Tensor:
        """[B, Q, C] to the same shape; `position` is [B, Q, C], `boxes` [B, Q, L, 4] in 0..1 of
        each padded level, `blocked` [Q, Q] True where the row's query must not see the column's.
        """
        query = x + position
        seen, _ = self.self_attn(query, query, x, attn_mask=blocked, need_weights=False)
        x = self.norm1(x + self.dropout1(seen))
        found = self.cross_attn(x + position, boxes, memory.content, memory.shapes, memory.mask)
        x = self.gateway(x, self.dropout2(found))
        hidden = self.linear2(self.dropout3(self.activation(self.linear1(x))))
        return self.norm3((x + self.dropout4(hidden)).clamp(-_LARGEST, _LARGEST))


@dataclass
class Decoded:
    """What the decoder says of its queries."""

    layers: list[Prediction]
    """first to last, or the last alone"""
    initial: Prediction | None
    """see `StudentOutput`; none where only the last layer was asked for"""
    edges: EdgeDistributions
    """of the same layers"""


class DFineDecoder(nn.Module):
    """Layers, and what they have beside the heads of classes and edges.

    The first layer reads a box straight from its state, as RT-DETR does: the initial box, whose
    edges all layers move. Each adds its own logits to the distributions of the one before.
    """

    def __init__(
        self,
        n_layers: int,
        dim: int,
        ffn_dim: int,
        n_heads: int,
        n_points: tuple[int, ...],
        n_bins: int,
        scale: float,
        activation: Activation,
        dropout: float = 0.0,
        backend: str = "auto",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.n_bins, self.checkpointing = n_bins, checkpointing
        layer = DFineDecoderLayer(dim, ffn_dim, n_heads, n_points, dropout, backend, activation)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(n_layers))
        self.query_position = MLP(4, 2 * dim, dim, 2, activation)
        self.initial = box_head(dim, activation)
        self.quality = nn.ModuleList(LocationQuality(activation) for _ in range(n_layers))
        # official files hold both, and some another scale than their configuration says
        self.up = nn.Parameter(torch.tensor([0.5]), requires_grad=False)
        self.scale = nn.Parameter(torch.tensor([scale]), requires_grad=False)

    def forward(
        self,
        content: Tensor,
        boxes: Tensor,
        memory: Levels,
        heads: LayerHeads,
        blocked: Tensor | None = None,
        last: int | None = None,
    ) -> Decoded:
        """`content` is [B, Q, C], `boxes` [B, Q, 4] (cx, cy, w, h) in 0..1 of the valid image,
        `blocked` [Q, Q]. All layers predict, or the one numbered `last` alone, at which it ends.
        """
        dtype = boxes.dtype
        scale = self.scale.to(dtype).abs().reshape(())
        distances = bin_distances(self.n_bins, self.up.to(dtype), scale)
        decoded = Decoded([], None, EdgeDistributions([], boxes, distances, scale))
        state, place = content, boxes
        before = torch.zeros_like(content)
        edges = content.new_zeros((), dtype=dtype)
        for index, layer in enumerate(islice(self.layers, None if last is None else last + 1)):
            position = self.query_position(place.to(state.dtype)).clamp(-10, 10)
            on_levels = references_on_levels(place, memory)
            inputs = (state, position, on_levels, memory, blocked)
            state = run_layer(layer, self.checkpointing, *inputs)
            if index == 0:
                initial = move_reference(self.initial(state).to(dtype), place, 1e-5)
                decoded.edges.reference = initial.detach()
                if last is None:
                    logits = heads.classify(0, state).to(dtype)
                    decoded.initial = Prediction(logits, initial)
            moved = heads.locate(index, state + before).unflatten(-1, (4, -1))
            edges = moved.to(dtype) + edges
            likely = edges.softmax(-1)
            refined = move_edges(decoded.edges.reference, likely @ distances, scale)
            if last in (None, index):
                sure = self.quality[index](likely.to(state.dtype)).to(dtype)
                logits = heads.classify(index, state).to(dtype) + sure
                decoded.layers.append(Prediction(logits, refined))
                decoded.edges.logits.append(edges)
            before, place = state.detach(), refined.detach()
        return decoded
