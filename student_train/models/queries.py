"""How matching queries start: two-stage selection of the encoder's best tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from student_train.models.encoder import Tokens
from student_train.models.heads import box_head, class_head
from student_train.models.output import Prediction


@dataclass
class Proposals(Prediction):
    """The encoder's predictions at the selected tokens, best first."""

    token_index: Tensor
    """LongTensor [B, Q], which token"""
    anchors: Tensor
    """[B, Q, 4], boxes of these tokens before the encoder's box head, (cx, cy, w, h) in 0..1"""


@dataclass
class Queries:
    """Starting point of the decoder."""

    content: Tensor
    """[B, Q, C]"""
    boxes: Tensor
    """[B, Q, 4], (cx, cy, w, h) in 0..1 of the valid image; carries no gradient"""
    proposals: Proposals


def token_anchors(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """A box around every token's cell, in logit space [B, S, 4], and which tokens are usable [B,
    S].

    Its centre is the cell's, its side 0.05 x 2^level of the valid image. Tokens on padding and
    boxes that come within 0.01 of 0 or 1 are unusable: their anchors are infinite. Deformable DETR
    appendix A.4.
    """
    dtype, device = tokens.valid_ratios.dtype, tokens.mask.device
    boxes = []
    start = 0
    for level, (height, width) in enumerate(tokens.shapes):
        mask = tokens.mask[:, start : start + height * width].unflatten(1, (height, width))
        start += height * width
        y, x = torch.meshgrid(
            torch.arange(height, dtype=dtype, device=device),
            torch.arange(width, dtype=dtype, device=device),
            indexing="ij",
        )
        valid_height = (~mask[:, :, 0]).sum(1).to(dtype)[:, None]
        valid_width = (~mask[:, 0, :]).sum(1).to(dtype)[:, None]
        cx = (x.reshape(1, -1) + 0.5) / valid_width
        cy = (y.reshape(1, -1) + 0.5) / valid_height
        side = torch.full_like(cx, 0.05 * 2**level)
        boxes.append(torch.stack((cx, cy, side, side), -1))
    anchors = torch.cat(boxes, 1)
    usable = ((anchors > 0.01) & (anchors < 0.99)).all(-1) & ~tokens.mask
    # the clamp only touches unusable anchors, and keeps their logarithm defined before they are
    # overwritten
    anchors = anchors.clamp(1e-6, 1 - 1e-6)
    logits = torch.log(anchors / (1 - anchors))
    return logits.masked_fill(~usable[..., None], torch.inf), usable


class TwoStageQueries(nn.Module):
    """Scores every token with its own heads and starts one query at each of the best.

    The box comes from the token, the content from a learned table (DINO's mixed query selection,
    section 3.4): row k belongs to the k-th best token. An image with fewer tokens than queries gets
    one query a token.
    """

    def __init__(self, n_queries: int, dim: int, n_classes: int) -> None:
        super().__init__()
        self.n_queries = n_queries
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classes = class_head(dim, n_classes)
        self.boxes = box_head(dim)
        self.content = nn.Embedding(n_queries, dim)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        nn.init.xavier_uniform_(self.content.weight)

    def start_from(self, classes: nn.Module, boxes: nn.Module) -> None:
        """Let the encoder's heads begin as copies of the decoder's."""
        self.classes.load_state_dict(classes.state_dict())
        self.boxes.load_state_dict(boxes.state_dict())

    def forward(self, memory: Tensor, tokens: Tokens) -> Queries:
        """`memory` is the encoder's output [B, S, C]."""
        anchors, usable = token_anchors(tokens)
        state = self.norm(self.project(memory.masked_fill(~usable[..., None], 0.0)))
        logits = self.classes(state).to(anchors.dtype)
        boxes = self.boxes(state).to(anchors.dtype) + anchors
        count = min(self.n_queries, state.shape[1])
        index = logits.amax(-1).topk(count, dim=1).indices
        selected = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        proposals = Proposals(
            logits=logits.gather(1, index[..., None].expand(-1, -1, logits.shape[-1])),
            boxes=selected.sigmoid(),
            token_index=index,
            anchors=anchors.gather(1, index[..., None].expand(-1, -1, 4)).sigmoid(),
        )
        content = self.content.weight[:count].expand(len(memory), -1, -1)
        return Queries(content, selected.detach().sigmoid(), proposals)
