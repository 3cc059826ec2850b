"""DN-DETR (Li et al., CVPR 2022, arXiv 2203.01305), as the official code computes it
(IDEA-Research/DN-DETR, `models/DN_DAB_DETR/DABDETR.py`, `models/DN_DAB_DETR/dn_components.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from student_train.models.layers.denoising import Noise, PlainDenoising
from student_train.models.layers.position import geometry_dtype
from student_train.models.output import StudentOutput
from student_train.models.single_scale import SingleScaleConfig, SingleScaleStudent
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class DnDetrConfig(SingleScaleConfig):
    """Settings of DN-DETR. The defaults are the official ResNet-50 DC5."""

    family: ClassVar[str] = "dn_detr"

    top_k: int = 300
    """detections kept for every image when evaluating"""
    temperature: float = 20.0
    """of the image's position encoding"""
    dn_groups: int = 5
    """noised copies of the ground truth; 0 switches denoising off"""
    dn_label_noise: float = 0.2
    """share of denoising labels that are replaced"""
    dn_box_noise: float = 0.4
    """how far centres move at most, in half sizes, and by what share sizes change"""

    def problems(self) -> list[str]:
        """Noise out of range."""
        problems = super().problems()
        if not 0 <= self.dn_label_noise <= 1:
            problems.append(f"dn_label_noise must lie in 0..1, not {self.dn_label_noise}")
        if self.dn_groups < 0 or self.dn_box_noise < 0:
            problems.append("dn_groups and dn_box_noise must not be negative")
        return problems


class DnDetr(SingleScaleStudent[DnDetrConfig]):
    """DAB-DETR whose contents are label embeddings: of noised ground truth in the denoising
    queries, of "unknown" in the matching ones, in inference too.
    """

    def __init__(self, config: DnDetrConfig) -> None:
        super().__init__(config, anchors=True)
        self.config = config
        self.anchors = nn.Embedding(config.n_queries, 4)
        self.denoising = PlainDenoising(
            config.n_classes,
            config.dim,
            config.dn_groups,
            config.dn_label_noise,
            config.dn_box_noise,
        )

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
        dtype = geometry_dtype(images)
        noisy = None
        if self.training and targets is not None and self.config.dn_groups > 0:
            noisy = self.denoising(targets, self.config.n_queries, dtype, noise)
        boxes = self.anchors.weight.to(dtype).sigmoid().expand(images.shape[0], -1, -1)
        content = self.denoising.unknown().expand(*boxes.shape[:2], -1)
        if noisy is None:
            return StudentOutput(self.decoder(content, boxes, memory, tokens, self.heads))
        content, boxes = noisy.before(content, boxes)
        layers = self.decoder(content, boxes, memory, tokens, self.heads, noisy.blocked)
        layers, denoising = noisy.split(layers)
        return StudentOutput(layers, denoising=denoising)
