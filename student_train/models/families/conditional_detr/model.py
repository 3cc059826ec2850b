"""Conditional DETR (Meng et al., ICCV 2021, arXiv 2108.06152), as the official code computes it
(Atten4Vis/ConditionalDETR, `models/conditional_detr.py`, `models/transformer.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from student_train.models.layers.heads import MLP
from student_train.models.layers.position import geometry_dtype
from student_train.models.output import StudentOutput
from student_train.models.single_scale import SingleScaleConfig, SingleScaleStudent
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class ConditionalDetrConfig(SingleScaleConfig):
    """Settings of Conditional DETR. The defaults are the official ResNet-50 DC5."""

    family: ClassVar[str] = "conditional_detr"

    dropout: float = 0.1
    """inside the transformer"""


class ConditionalDetr(SingleScaleStudent[ConditionalDetrConfig]):
    """Every query is a learned vector: its position, from which a network reads the point around
    which all layers predict. Contents start at zero.
    """

    def __init__(self, config: ConditionalDetrConfig) -> None:
        super().__init__(config, anchors=False)
        self.config = config
        self.queries = nn.Embedding(config.n_queries, config.dim)
        self.reference = MLP(config.dim, config.dim, 2, 2)
        for layer in self.reference.layers:
            nn.init.xavier_uniform_(layer.weight)  # type: ignore[arg-type]

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. There are no denoising queries."""
        memory, tokens = self.encode(images, mask)
        position = self.queries.weight.expand(images.shape[0], -1, -1)
        points = self.reference(position).to(geometry_dtype(images)).sigmoid()
        content = position.new_zeros(position.shape)
        layers = self.decoder(content, points, memory, tokens, self.heads, position=position)
        return StudentOutput(layers)
