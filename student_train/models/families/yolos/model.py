"""YOLOS: You Only Look at One Sequence (Fang et al., arXiv 2106.00666), as hustvl/YOLOS computes it
(`models/detector.py`).

A DeiT whose sequence ends with detection tokens, and two heads that read them. Nothing else: no
decoder, no auxiliary layers, no reference points. Padding is seen as black pixels, for the official
code ignores the mask.

One thing differs: a position table is resized whenever the batch's grid differs from the table's.
The official code leaves it as it is where only the counts of patches agree, as for a portrait image
of 864 x 512 pixels against a table for 512 x 864.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from student_train.errors import ConfigError
from student_train.models.backbones.backbone_weights import load_backbone_weights
from student_train.models.backbones.vit import TokenViT, ViTShape
from student_train.models.config import StudentConfig
from student_train.models.layers.heads import MLP
from student_train.models.layers.position import geometry_dtype
from student_train.models.layers.weight_decay import undecayed
from student_train.models.output import Form, Prediction, StudentOutput
from student_train.models.student import Student
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class YolosConfig(StudentConfig):
    """Settings of YOLOS. The defaults are the official YOLOS-S.

    `n_classes` counts real classes, as everywhere; no-object is one logit more.
    """

    family: ClassVar[str] = "yolos"
    classification: ClassVar[Form] = "softmax"

    backbone: str = "deit_small_patch16_224"
    """deit_tiny_patch16_224, deit_small_patch16_224 ..."""
    n_queries: int = 100
    """detection tokens: boxes predicted for every image"""
    table_size: tuple[int, int] = (512, 864)
    """height and width in pixels of the images that the first position table is made for"""
    mid_table_size: tuple[int, int] | None = (512, 864)
    """the same of the tables added after every block but the last; none: no such tables"""

    def problems(self) -> list[str]:
        """An unknown backbone, tables without a patch, stochastic depth out of range."""
        problems = super().problems()
        shape = ViTShape.parse(self.backbone)
        if shape is None:
            problems.append(
                "backbone must be deit_tiny_patch16_224, deit_small_patch16_224 or "
                f"deit_base_patch16_224, not {self.backbone!r}"
            )
        for name in ("table_size", "mid_table_size"):
            size = getattr(self, name)
            if shape is not None and size is not None and min(size) < shape.patch:
                problems.append(f"{name} must be at least a patch of {shape.patch}, not {size}")
        if not 0 <= self.drop_path < 1:
            problems.append(f"drop_path must lie in 0..1, not {self.drop_path}")
        return problems


class Yolos(Student[YolosConfig]):
    """A ViT with detection tokens, a class head and a box head."""

    def __init__(self, config: YolosConfig) -> None:
        super().__init__()
        self.config = config
        shape = ViTShape.parse(config.backbone)
        if shape is None:
            raise ConfigError(config.problems())
        self.backbone = TokenViT(
            shape,
            config.n_queries,
            _grid(config.table_size, shape.patch),
            config.mid_table_size and _grid(config.mid_table_size, shape.patch),
            config.drop_path,
            config.checkpointing,
        )
        if config.backbone_weights is not None:
            load_backbone_weights(self.backbone, config.backbone, config.backbone_weights)
        self.classes = MLP(shape.dim, shape.dim, config.n_classes + 1, 3)
        self.boxes = MLP(shape.dim, shape.dim, 4, 3)

    def no_weight_decay(self) -> set[str]:
        """The backbone's biases, norms and tokens, and the first position table; the official code
        lets the later tables decay.
        """
        return undecayed(self.backbone, ("cls_token", "det_token", "pos_embed"))

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. Nothing but the images is looked at: the tokens have
        to tell padding from pixels.
        """
        state = self.backbone(images)
        dtype = geometry_dtype(images)
        prediction = Prediction(
            self.classes(state).to(dtype), self.boxes(state).to(dtype).sigmoid()
        )
        return StudentOutput([prediction], classification=self.config.classification)


def _grid(size: tuple[int, int], patch: int) -> tuple[int, int]:
    return size[0] // patch, size[1] // patch
