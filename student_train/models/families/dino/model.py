"""DINO: DETR with improved denoising anchor boxes (Zhang et al., arXiv 2203.03605), as the official
code computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from student_train.models.config import ContrastiveConfig, DeformableConfig
from student_train.models.layers.decoder import DeformableDecoder
from student_train.models.layers.denoising import ContrastiveDenoising, Noise
from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.position import geometry_dtype
from student_train.models.layers.queries import TwoStageQueries
from student_train.models.multi_scale import MultiScaleStudent
from student_train.models.output import StudentOutput
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class DinoConfig(DeformableConfig, ContrastiveConfig):
    """Settings of DINO. The defaults are the official ResNet-50, 4 scales."""

    family: ClassVar[str] = "dino"

    n_queries: int = 900
    """boxes predicted for every image"""
    top_k: int = 300
    """detections kept for every image when evaluating"""
    temperature: float = 20.0
    """of the image's position encoding"""
    position_offset: float = 0.0
    """what the image's positions are counted from: 0 the cells' far borders (official), 0.5 their
    centres (detrex)"""
    box_eps: float = 1e-3
    """bound of the logits that predicted boxes are measured from (mmdet: 1e-5); that of the refined
    ones is 1e-3 everywhere"""
    share_heads: bool = True
    """one pair of heads for all decoder layers (official), or one for each (detrex, mmdet)"""
    dn_number: int = 100
    """from 50 on: denoising queries of either kind an image, roughly; below 50: half the count of
    groups, each of which holds every target twice (as official); 0 switches denoising off"""

    def problems(self) -> list[str]:
        """Noise and temperature out of range."""
        problems = super().problems() + self.noise_problems()
        if not 0 < self.box_eps < 0.5:
            problems.append(f"box_eps must lie in 0..0.5, not {self.box_eps}")
        if self.temperature <= 0:
            problems.append(f"temperature must be above 0, not {self.temperature}")
        return problems


class Dino(MultiScaleStudent[DinoConfig]):
    """Mixed query selection, denoising queries, and a decoder that looks forward twice."""

    def __init__(self, config: DinoConfig) -> None:
        super().__init__(config, config.temperature, config.position_offset)
        self.config = config
        self.queries = TwoStageQueries(config.n_queries, config.dim, config.n_classes)
        self.decoder = DeformableDecoder(
            config.decoder_layers,
            config.sizes,
            refinement="look_forward_twice",
            norm=True,
            box_position="sine",
            eps=1e-3,
            box_eps=config.box_eps,
            checkpointing=config.checkpointing,
        )
        self.heads = LayerHeads(
            config.dim, config.n_classes, config.decoder_layers, config.share_heads
        )
        self.denoising = ContrastiveDenoising(
            config.n_classes,
            config.dim,
            config.dn_number,
            config.dn_label_noise,
            config.dn_box_noise,
        )
        assert self.queries.content is not None
        nn.init.xavier_uniform_(self.queries.content.weight)
        self.start_as_official()

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: Noise | None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. Predictions of denoising queries, [B, D, ...], come
        apart in `denoising`.
        """
        memory, tokens = self.encode(images, mask)
        start = self.queries(memory, tokens)
        noisy = None
        if self.training and targets is not None and self.config.dn_number > 0:
            noisy = self.denoising(targets, start.content.shape[1], geometry_dtype(images), noise)
        content, boxes, blocked = start.content, start.boxes, None
        if noisy is not None:
            content, boxes = noisy.before(content, boxes)
            blocked = noisy.blocked
        elif self.training:
            # without denoising queries the label embedding still has to receive a (zero) gradient:
            # distributed training waits for one from every parameter, and other ranks may have
            # targets
            content = content + 0.0 * self.denoising.label_embedding.weight.sum()
        layers = self.decoder(content, boxes, memory, tokens, self.heads, blocked)
        denoising = None
        if noisy is not None:
            layers, denoising = noisy.split(layers)
        return StudentOutput(
            layers,
            proposals=start.proposals,
            proposal_labels="class",
            denoising=denoising,
        )
