"""DAB-DETR (Liu et al., ICLR 2022, arXiv 2201.12329), as the official code computes it
(IDEA-Research/DAB-DETR, `models/DAB_DETR/DABDETR.py`, `models/DAB_DETR/transformer.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from student_train.models.layers.position import geometry_dtype
from student_train.models.output import StudentOutput
from student_train.models.single_scale import SingleScaleConfig, SingleScaleStudent
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class DabDetrConfig(SingleScaleConfig):
    """Settings of DAB-DETR. The defaults are the official ResNet-50 DC5."""

    family: ClassVar[str] = "dab_detr"

    n_queries: int = 300
    """anchors; each predicts one box an image, or one for every pattern"""
    top_k: int = 300
    """detections kept for every image when evaluating"""
    temperature: float = 20.0
    """of the image's position encoding"""
    n_patterns: int = 0
    """learned contents that every anchor is tried with (Anchor DETR); 0: contents start at zero"""

    def problems(self) -> list[str]:
        """A negative number of patterns."""
        problems = super().problems()
        if self.n_patterns < 0:
            problems.append(f"n_patterns must not be negative, not {self.n_patterns}")
        return problems


class DabDetr(SingleScaleStudent[DabDetrConfig]):
    """Every query is a learned box, the anchor, that the layers refine."""

    def __init__(self, config: DabDetrConfig) -> None:
        super().__init__(config, anchors=True)
        self.config = config
        self.anchors = nn.Embedding(config.n_queries, 4)
        self.patterns = nn.Embedding(config.n_patterns, config.dim) if config.n_patterns else None

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. Predictions come pattern by pattern; there are no
        denoising queries.
        """
        memory, tokens = self.encode(images, mask)
        anchors = self.anchors.weight.to(geometry_dtype(images)).sigmoid()
        if self.patterns is None:
            content = memory.new_zeros(len(anchors), memory.shape[-1])
        else:
            content = self.patterns.weight.repeat_interleave(len(anchors), dim=0)
            anchors = anchors.repeat(len(self.patterns.weight), 1)
        layers = self.decoder(
            content.expand(images.shape[0], -1, -1),
            anchors.expand(images.shape[0], -1, -1),
            memory,
            tokens,
            self.heads,
        )
        return StudentOutput(layers)
