"""H-DETR on Deformable DETR (Jia et al., CVPR 2023, arXiv 2207.13080), as its official code
computes it (HDETR/H-Deformable-DETR, `models/deformable_detr.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from student_train.models.families.deformable_detr.model import DeformableDetr, DeformableDetrConfig
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class HDetrConfig(DeformableDetrConfig):
    """Settings of H-Deformable-DETR. The defaults are the official ResNet-50.

    How often each box is repeated for the second set stands with the loss: `loss.repeat`.
    """

    family: ClassVar[str] = "h_detr"

    dropout: float = 0.0
    """inside the transformer"""
    mixed_selection: bool = True
    """contents of queries are learned, positions come from the proposals; otherwise both come from
    the proposals"""
    look_forward_twice: bool = True
    """a layer's box loss trains the box head of the layer before too"""
    n_queries_one_to_many: int = 1500
    """queries of the second set, each box's to several; in training only"""

    def problems(self) -> list[str]:
        """A negative number of queries."""
        problems = super().problems()
        if self.n_queries_one_to_many < 0:
            problems.append(
                f"n_queries_one_to_many must not be negative, not {self.n_queries_one_to_many}"
            )
        return problems


class HDetr(DeformableDetr):
    """Deformable DETR with the tricks, and in training a second, larger set of queries that is
    matched one-to-many.

    The best tokens start the first set, the next ones the second. Neither sees the other.
    """

    def __init__(self, config: HDetrConfig) -> None:
        super().__init__(config, config.n_queries_one_to_many)
        self.n_one_to_many = config.n_queries_one_to_many

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `DeformableDetr.forward`. In training the output has `one_to_many`, unless
        the images have no token left for it.
        """
        first = self.config.n_queries
        extra = self.n_one_to_many if self.training else 0
        memory, tokens = self.encode(images, mask)
        start = self.queries(memory, tokens, first + extra)
        second = torch.arange(start.boxes.shape[1], device=images.device) >= first
        blocked = second[:, None] != second if len(second) > first else None
        layers = self.decode(start, memory, tokens, blocked)
        many = None if blocked is None else [each.queries(first, None) for each in layers]
        return StudentOutput(
            [each.queries(0, first) for each in layers],
            proposals=start.proposals,
            proposal_labels="binary",
            one_to_many=many,
        )
