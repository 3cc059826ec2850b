"""Queries of LW-DETR and RF-DETR: contents and moves that are learned, boxes that the tokens
propose, and in training several groups of them (Group DETR, Chen et al., ICCV 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from student_train.models.layers.encoder import Levels
from student_train.models.layers.heads import box_head, class_head
from student_train.models.layers.queries import Proposals, Queries, cell_anchors, gather_tokens


def move_box(change: Tensor, reference: Tensor) -> Tensor:
    """Boxes [..., 4] (cx, cy, w, h) that lie `change` away from `reference`: centres in sizes of
    it, sizes as the logarithm of a factor. Not bounded: a box may leave the image.
    """
    centre, size = reference[..., :2], reference[..., 2:]
    return torch.cat((centre + change[..., :2] * size, size * change[..., 2:].exp()), -1)


class ProposalHead(nn.Module):
    """What one group makes of the tokens: scores of the classes, and boxes."""

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classes = class_head(dim, n_classes)
        self.boxes = box_head(dim)

    def forward(self, tokens: Tensor, anchors: Tensor, usable: Tensor, n_queries: int) -> Proposals:
        """The best `n_queries` of the tokens [B, S, C] by their best class, unusable ones last.

        Official code lets a token on padding be chosen like any other, with a box of size 0.
        """
        state = self.norm(self.project(tokens))
        logits = self.classes(state).to(anchors.dtype)
        scores = logits.amax(-1)
        index = scores.masked_fill(~usable, -torch.inf).topk(n_queries, dim=1).indices
        change = self.boxes(gather_tokens(state, index)).to(anchors.dtype)
        chosen = gather_tokens(anchors, index)
        boxes = move_box(change, chosen)
        return Proposals(gather_tokens(logits, index), boxes, index, chosen)


class GroupQueries(nn.Module):
    """Groups of queries; inference knows the first alone.

    A group has heads of its own for the tokens, and rows of its own in the tables of contents and
    moves. An image with fewer tokens than queries gets one query a token.
    """

    def __init__(self, n_queries: int, n_groups: int, dim: int, n_classes: int) -> None:
        super().__init__()
        self.n_queries = n_queries
        self.heads = nn.ModuleList(ProposalHead(dim, n_classes) for _ in range(n_groups))
        self.content = nn.Embedding(n_groups * n_queries, dim)
        self.moves = nn.Embedding(n_groups * n_queries, 4)
        nn.init.zeros_(self.moves.weight)

    def start_from(self, classes: nn.Module, boxes: nn.Module) -> None:
        """Let all heads begin as copies of the decoder's."""
        for head in self.heads:
            head.get_submodule("classes").load_state_dict(classes.state_dict())
            head.get_submodule("boxes").load_state_dict(boxes.state_dict())

    def forward(self, memory: Tensor, tokens: Levels, n_groups: int) -> Queries:
        """The queries of the first `n_groups`, one group after the other, from the tokens' content
        [B, S, C].
        """
        anchors, usable = cell_anchors(tokens)
        hidden = ~usable[..., None]
        memory, anchors = memory.masked_fill(hidden, 0.0), anchors.masked_fill(hidden, 0.0)
        count = min(self.n_queries, memory.shape[1])
        found = [head(memory, anchors, usable, count) for head in self.heads[:n_groups]]
        proposals = Proposals(
            *(
                torch.cat([getattr(each, name) for each in found], 1)
                for name in ("logits", "boxes", "token_index", "anchors")
            )
        )
        content, moves = (
            table.weight.unflatten(0, (-1, self.n_queries))[:n_groups, :count].flatten(0, 1)
            for table in (self.content, self.moves)
        )
        boxes = move_box(moves.to(anchors.dtype), proposals.boxes.detach())
        return Queries(content.expand(memory.shape[0], -1, -1), boxes, None, proposals)
