"""Deformable DETR, two-stage (Zhu et al., ICLR 2021, arXiv 2010.04159), as its official code
computes it (fundamentalvision/Deformable-DETR, `models/deformable_transformer.py`), and with the
tricks that H-DETR's code gives it (HDETR/H-Deformable-DETR, same file).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from student_train.models.config import DeformableConfig
from student_train.models.layers.decoder import DeformableDecoder
from student_train.models.layers.encoder import Tokens
from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.queries import Queries, TwoStageQueries
from student_train.models.multi_scale import MultiScaleStudent
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class DeformableDetrConfig(DeformableConfig):
    """Settings of two-stage Deformable DETR. The defaults are the official ResNet-50.

    The three tricks are `mixed_selection`, `look_forward_twice` and `dropout` 0.
    """

    family: ClassVar[str] = "deformable_detr"

    dropout: float = 0.1
    """inside the transformer; 0 with the tricks"""
    mixed_selection: bool = False
    """contents of queries are learned, positions come from the proposals; otherwise both come from
    the proposals"""
    look_forward_twice: bool = False
    """a layer's box loss trains the box head of the layer before too"""


class DeformableDetr(MultiScaleStudent[DeformableDetrConfig]):
    """Proposals are scored as object or not, whatever their class, and all of them are supervised;
    every layer has heads of its own.
    """

    def __init__(self, config: DeformableDetrConfig, n_extra_queries: int = 0) -> None:
        """`n_extra_queries`: rows of the table of contents beside those of `config.n_queries`."""
        super().__init__(config, temperature=10000.0, offset=0.5)
        self.config = config
        self.queries = TwoStageQueries(
            config.n_queries + n_extra_queries,
            config.dim,
            config.n_classes,
            labels="binary",
            learned_content=config.mixed_selection,
            read_boxes=True,
        )
        self.decoder = DeformableDecoder(
            config.decoder_layers,
            config.sizes,
            refinement="look_forward_twice" if config.look_forward_twice else "detached",
            checkpointing=config.checkpointing,
        )
        self.heads = LayerHeads(config.dim, config.n_classes, config.decoder_layers, shared=False)
        self.start_as_official()

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. There are no denoising queries."""
        memory, tokens = self.encode(images, mask)
        start = self.queries(memory, tokens)
        layers = self.decode(start, memory, tokens)
        return StudentOutput(layers, proposals=start.proposals, proposal_labels="binary")

    def decode(
        self, start: Queries, memory: Tensor, tokens: Tokens, blocked: Tensor | None = None
    ) -> list[Prediction]:
        """Predictions of every layer; `blocked` [Q, Q] hides queries from each other."""
        return self.decoder(
            start.content, start.boxes, memory, tokens, self.heads, blocked, start.position
        )
