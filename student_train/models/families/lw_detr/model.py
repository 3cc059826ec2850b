"""LW-DETR: a plain ViT in windows, a projector and a shallow decoder (Chen et al., arXiv
2406.03459), as its official code computes it (Atten4Vis/LW-DETR, `models/lwdetr.py` and
`models/transformer.py`).

There is no encoder: queries and decoder read the projector's maps. In training there are several
groups of queries, each of which is matched on its own; evaluation knows the first alone, so a
student in evaluation mode has one group whatever is computed of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from student_train.errors import ConfigError
from student_train.models.backbones.backbone_weights import load_backbone_weights
from student_train.models.backbones.cae_vit import KNOWN, CaeViT, cae_shape
from student_train.models.backbones.windows import WindowedShape, WindowedViT
from student_train.models.config import DecoderConfig, SamplingConfig
from student_train.models.layers.encoder import LayerSizes, flatten_maps
from student_train.models.layers.group_queries import GroupQueries
from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.lite_decoder import LiteDecoder
from student_train.models.layers.projector import SCALES, Projector
from student_train.models.layers.weight_decay import undecayed
from student_train.models.output import StudentOutput
from student_train.models.student import Student
from student_train.models.targets import Targets


@dataclass(frozen=True, kw_only=True)
class LwDetrConfig(DecoderConfig, SamplingConfig):
    """Settings of LW-DETR. The defaults are the official LW-DETR-small."""

    family: ClassVar[str] = "lw_detr"

    backbone: str = "cae_vit_tiny_10"
    """a windowed ViT by size and number of blocks: cae_vit_tiny_6, cae_vit_tiny_10,
    cae_vit_small_10 or cae_vit_base_10"""
    levels: tuple[str, ...] = ("P4",)
    """maps that the decoder samples: P4 has the ViT's own stride, P3 half of it, P5 twice as much;
    large and xlarge: P3 P5"""
    n_groups: int = 13
    """groups of queries in training; evaluation uses the first"""
    n_heads: int = 8
    """heads of the queries' self-attention"""
    n_sampling_heads: int = 16
    """heads of the deformable attention"""
    n_points: int = 2
    """points that a head samples on every level"""
    decoder_layers: int = 3
    """layers of the decoder, each of which predicts"""
    top_k: int = 300
    """detections kept for every image when evaluating"""

    @property
    def shape(self) -> WindowedShape | None:
        """The sizes of the backbone; None for an unknown one."""
        return cae_shape(self.backbone)

    @property
    def side_multiple(self) -> int:
        """Windows of whole patches, as many as there are."""
        return 1 if self.shape is None else self.shape.multiple

    def problems(self) -> list[str]:
        """An unknown backbone, heads that do not divide, levels that there are not."""
        problems = super().problems() + self.sampling_problems()
        problems += self.below_one("n_groups", "n_sampling_heads")
        if self.shape is None:
            problems.append(f"backbone must be {self.known_backbones()}, not {self.backbone!r}")
        if not self.levels or list(self.levels) != sorted(set(self.levels) & set(SCALES)):
            problems.append(f"levels must be some of P3 P4 P5 in this order, not {self.levels}")
        if self.n_sampling_heads >= 1 and self.dim % self.n_sampling_heads:
            problems.append(
                f"dim must be a multiple of n_sampling_heads={self.n_sampling_heads}, "
                f"not {self.dim}"
            )
        if not 0 <= self.drop_path < 1:
            problems.append(f"drop_path must lie in 0..1, not {self.drop_path}")
        return problems

    def known_backbones(self) -> str:
        """Names that `backbone` may have, for people."""
        return KNOWN


class LwDetr(Student[LwDetrConfig]):
    """ViT, projector, groups of queries, decoder; RF-DETR has another ViT and other norms."""

    def __init__(self, config: LwDetrConfig) -> None:
        super().__init__()
        self.config = config
        if config.shape is None:
            raise ConfigError(config.problems())
        self.backbone = self.make_backbone(config, config.shape)
        if config.backbone_weights is not None:
            load_backbone_weights(self.backbone, config.backbone, config.backbone_weights)
        self.projector = Projector(
            self.backbone.channels,
            config.dim,
            config.levels,
            self.projector_norm,
        )
        self.queries = GroupQueries(config.n_queries, config.n_groups, config.dim, config.n_classes)
        self.decoder = LiteDecoder(
            config.decoder_layers,
            LayerSizes(
                config.dim,
                config.ffn_dim,
                config.n_sampling_heads,
                len(config.levels),
                config.n_points,
                config.dropout,
                config.attention_backend,
            ),
            n_self_heads=config.n_heads,
            checkpointing=config.checkpointing,
        )
        self.heads = LayerHeads(config.dim, config.n_classes, config.decoder_layers, shared=True)
        self._start_as_official()

    @staticmethod
    def projector_norm(dim: int) -> nn.Module:
        """The norm behind every convolution of the projector."""
        return nn.BatchNorm2d(dim)

    def make_backbone(self, config: LwDetrConfig, shape: WindowedShape) -> WindowedViT:
        """The ViT, with fresh weights."""
        return CaeViT(shape, config.drop_path, config.checkpointing)

    def _start_as_official(self) -> None:
        """Xavier for the decoder's matrices, and heads of the tokens that are copies of its own."""
        for name, parameter in self.decoder.named_parameters():
            if parameter.ndim > 1 and "cross_attn" not in name:
                nn.init.xavier_uniform_(parameter)
        for head in self.queries.heads:
            nn.init.xavier_uniform_(head.get_parameter("project.weight"))
        self.queries.start_from(self.heads.classes[0], self.heads.boxes[0])

    def no_weight_decay(self) -> set[str]:
        """The ViT's biases, norms, branch scales and table of positions, as official."""
        return undecayed(self.backbone, ("pos_embed",))

    def depths(self) -> dict[str, int]:
        """Blocks from every parameter of the ViT to its end: 0 for what follows the last block."""
        return {f"backbone.{key}": depth for key, depth in self.backbone.depths().items()}

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. There are no denoising queries. The ViT sees padding, the
        decoder does not; boxes are not bounded. In training the output has the queries of all
        groups, one group after the other.

        Raises InputSizeError for sides that are no multiples of a row of windows.
        """
        groups = self.config.n_groups if self.training else 1
        levels = flatten_maps(self.projector(self.backbone(images)), mask)
        start = self.queries(levels.content, levels, groups)
        layers = self.decoder(
            start.content, start.boxes, levels.content, levels, self.heads, groups
        )
        return StudentOutput(layers, proposals=start.proposals, n_groups=groups)
