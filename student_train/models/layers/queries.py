"""How matching queries start: two-stage selection of the encoder's best tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models.layers.encoder import Levels
from student_train.models.layers.heads import Activation, box_head, class_head
from student_train.models.layers.position import cells, sine_coordinates
from student_train.models.output import Prediction


@dataclass
class Proposals(Prediction):
    """The encoder's predictions, and which tokens they made queries of.

    With labels `class` they are those at the selected tokens, best first (DINO); with `binary`
    those at all tokens, level by level, row by row (Deformable DETR).
    """

    token_index: Tensor
    """LongTensor [B, Q], the selected tokens, best first"""
    anchors: Tensor
    """[B, Q, 4], boxes of these tokens before the encoder's box head, (cx, cy, w, h) in 0..1"""


@dataclass
class Queries:
    """Starting point of the decoder."""

    content: Tensor
    """[B, Q, C]"""
    boxes: Tensor
    """[B, Q, 4], (cx, cy, w, h) in 0..1 of the valid image; carries no gradient"""
    position: Tensor | None
    """[B, Q, C], encoding of the boxes; none if the decoder makes its own"""
    proposals: Proposals


def cell_anchors(tokens: Levels) -> tuple[Tensor, Tensor]:
    """A box around every token's cell, [B, S, 4] (cx, cy, w, h) in 0..1 of the valid image, and
    which tokens are usable [B, S].

    Its centre is the cell's, its side 0.05 x 2^level of the valid image. Tokens on padding and
    boxes that come within 0.01 of 0 or 1 are unusable. Deformable DETR appendix A.4.
    """
    dtype, device = tokens.valid_ratios.dtype, tokens.mask.device
    boxes = []
    start = 0
    for level, (height, width) in enumerate(tokens.shapes):
        mask = tokens.mask[:, start : start + height * width].unflatten(1, (height, width))
        start += height * width
        y, x = cells(height, width, dtype, device)
        valid_height = (~mask[:, :, 0]).sum(1).to(dtype)[:, None]
        valid_width = (~mask[:, 0, :]).sum(1).to(dtype)[:, None]
        cx = (x.reshape(1, -1) + 0.5) / valid_width
        cy = (y.reshape(1, -1) + 0.5) / valid_height
        side = torch.full_like(cx, 0.05 * 2**level)
        boxes.append(torch.stack((cx, cy, side, side), -1))
    anchors = torch.cat(boxes, 1)
    usable = ((anchors > 0.01) & (anchors < 0.99)).all(-1) & ~tokens.mask
    return anchors, usable


def token_anchors(tokens: Levels) -> tuple[Tensor, Tensor]:
    """`cell_anchors` in logit space; those of unusable tokens are infinite."""
    anchors, usable = cell_anchors(tokens)
    # the clamp only touches unusable anchors, and keeps their logarithm defined before they are
    # overwritten
    anchors = anchors.clamp(1e-6, 1 - 1e-6)
    logits = torch.log(anchors / (1 - anchors))
    return logits.masked_fill(~usable[..., None], torch.inf), usable


class BoxEmbedding(nn.Module):
    """Position and content of a query, both read off its box (Deformable DETR, two-stage): a sine
    encoding of each coordinate, a linear layer, a norm.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(2 * dim)
        nn.init.xavier_uniform_(self.project.weight)

    def forward(self, boxes: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Boxes [B, Q, 4] in 0..1 to position and content, [B, Q, C] each, of a student that
        computes in `dtype`.
        """
        encoded = sine_coordinates(boxes, self.dim).to(dtype)
        position, content = self.norm(self.project(encoded)).chunk(2, -1)
        return position, content


class TwoStageQueries(nn.Module):
    """Scores every token with its own heads and starts one query at each of the best.

    - `labels`: what the encoder's logits mean. `class`: a token's score is its best class's (DINO).
      `binary`: it is the first logit, which says that there is an object (Deformable DETR).
    - `learned_content`: contents come from a table whose row k belongs to the k-th best token
      (mixed query selection, DINO section 3.4).
    - `read_boxes`: positions, and contents unless they are learned, are read off the boxes. Without
      it the decoder makes positions of its own.
    - Without either, contents are the selected tokens themselves, without gradient (RT-DETR).

    An image with fewer tokens than queries gets one query a token.
    """

    def __init__(
        self,
        n_queries: int,
        dim: int,
        n_classes: int,
        labels: Literal["class", "binary"] = "class",
        learned_content: bool = True,
        read_boxes: bool = False,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.n_queries = n_queries
        self.labels: Literal["class", "binary"] = labels
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classes = class_head(dim, n_classes)
        self.boxes = box_head(dim, activation)
        self.content = nn.Embedding(n_queries, dim) if learned_content else None
        self.embedding = BoxEmbedding(dim) if read_boxes else None
        nn.init.xavier_uniform_(self.project.weight)

    def start_from(self, classes: nn.Module, boxes: nn.Module) -> None:
        """Let the encoder's heads begin as copies of the decoder's."""
        self.classes.load_state_dict(classes.state_dict())
        self.boxes.load_state_dict(boxes.state_dict())

    def forward(self, memory: Tensor, tokens: Levels, n_queries: int | None = None) -> Queries:
        """`memory` is the encoder's output [B, S, C]; `n_queries` asks for fewer than there are."""
        anchors, usable = token_anchors(tokens)
        state = self.norm(self.project(memory.masked_fill(~usable[..., None], 0.0)))
        logits = self.classes(state).to(anchors.dtype)
        scores = logits.amax(-1) if self.labels == "class" else logits[..., 0]
        count = min(self.n_queries if n_queries is None else n_queries, state.shape[1])
        index = scores.topk(count, dim=1).indices
        chosen, starts = gather_tokens(state, index), gather_tokens(anchors, index)
        if self.labels == "class":
            boxes = selected = self.boxes(chosen).to(anchors.dtype) + starts
            logits = gather_tokens(logits, index)
        else:
            boxes = self.boxes(state).to(anchors.dtype) + anchors
            selected = gather_tokens(boxes, index)
        proposals = Proposals(
            logits=logits, boxes=boxes.sigmoid(), token_index=index, anchors=starts.sigmoid()
        )
        references = selected.detach().sigmoid()
        position, content = None, chosen.detach()
        if self.embedding is not None:
            position, content = self.embedding(references, state.dtype)
        if self.content is not None:
            content = self.content.weight[:count].expand(memory.shape[0], -1, -1)
        return Queries(content, references, position, proposals)


def gather_tokens(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [B, Q] of every image's `values` [B, S, D]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
