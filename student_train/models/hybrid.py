"""What RT-DETR and D-FINE have in common: a hybrid encoder, queries that are the encoder's best
tokens, and denoising queries of a kind of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models.backbones.backbone import Backbone
from student_train.models.config import AttentionConfig, ContrastiveConfig, TransformerConfig
from student_train.models.layers.conv_norm import ConvNorm
from student_train.models.layers.denoising import Noise, NoisyQueries, SlotDenoising
from student_train.models.layers.encoder import Levels, flatten_maps
from student_train.models.layers.heads import Activation, LayerHeads
from student_train.models.layers.hybrid_encoder import FusionParts, HybridEncoder
from student_train.models.layers.position import geometry_dtype
from student_train.models.layers.queries import Proposals, TwoStageQueries
from student_train.models.pixels import UNIT, Pixels
from student_train.models.student import Config, Student
from student_train.models.targets import Targets

ACTIVATIONS: dict[str, Activation] = {"relu": F.relu, "silu": F.silu}


@dataclass(frozen=True, kw_only=True)
class HybridConfig(TransformerConfig, AttentionConfig, ContrastiveConfig):
    """Settings of a student with a hybrid encoder."""

    pixels: ClassVar[Pixels] = UNIT

    n_classes: int = 80
    """class logits; 80 for COCO's categories in their order"""
    top_k: int = 300
    """detections kept for every image when evaluating"""
    norm: str = "batch"
    """frozen: the backbone's batch norms keep the statistics and scales of their weights file;
    batch: they are trained. Those of the encoder always are"""
    encoder_layers: int = 1
    """layers of attention on the coarsest map"""
    ffn_dim: int = 1024
    """hidden width of the decoder's feed-forward networks"""
    encoder_dim: int = 256
    """width of the encoder's maps"""
    encoder_ffn_dim: int = 1024
    """hidden width of the encoder's feed-forward network"""
    expansion: float = 1.0
    """width of the encoder's blocks between maps, in widths of its maps"""
    depth: float = 1.0
    """depth of these blocks, in thirds of a layer: 1 means three"""
    activation: Literal["relu", "silu"] = "relu"
    """of the decoder's feed-forward networks and of all heads: silu in DEIM"""
    eval_layers: int | None = None
    """decoder layers that evaluation and prediction use; none: all"""

    @property
    def side_multiple(self) -> int:
        """That of the coarsest map, whose cells are halved on the way to the others."""
        return max(self.strides)

    @property
    def blocks(self) -> int:
        """RepVGG blocks of every crossing between two maps."""
        return round(3 * self.depth)

    def problems(self) -> list[str]:
        """Sizes that do not divide, layers that do not exist, noise out of range."""
        problems = super().problems() + self.backend_problems() + self.noise_problems()
        problems += (small := self.below_one("encoder_dim", "encoder_ffn_dim"))
        if not small and (self.encoder_dim % self.n_heads or self.encoder_dim % 4):
            problems.append(
                f"encoder_dim must be a multiple of 4 and of n_heads={self.n_heads}, "
                f"not {self.encoder_dim}"
            )
        if any(b != 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False)):
            problems.append(f"strides must double, as 8 16 32, not {self.strides}")
        if self.activation not in ACTIVATIONS:
            problems.append(f"activation must be relu or silu, not {self.activation!r}")
        if self.expansion <= 0 or self.depth < 0:
            problems.append("expansion must be above 0 and depth not negative")
        if self.eval_layers is not None and not 1 <= self.eval_layers <= self.decoder_layers:
            problems.append(
                f"eval_layers must lie in 1..decoder_layers={self.decoder_layers}, "
                f"not {self.eval_layers}"
            )
        return problems


@dataclass(frozen=True)
class Start:
    """Where the decoder begins."""

    content: Tensor
    """[B, D + Q, C], D of them of denoising queries"""
    boxes: Tensor
    """[B, D + Q, 4], (cx, cy, w, h) in 0..1 of the valid image; no gradient"""
    proposals: Proposals
    noisy: NoisyQueries | None
    """in training only"""

    @property
    def blocked(self) -> Tensor | None:
        """[D + Q, D + Q], True where the row's query must not see the column's."""
        return None if self.noisy is None else self.noisy.blocked


class HybridStudent(Student[Config]):
    """Backbone, hybrid encoder and the queries; subclasses have a decoder and its heads.

    The official code resizes images to squares and has neither padding nor masks. Here padding is
    masked, as for all students: attention does not look at it, its tokens are empty when queries
    are chosen, and boxes are measured on the valid image. Where there is none, nothing changes.
    """

    denoising_queries: type[SlotDenoising] = SlotDenoising
    """what makes them"""

    def __init__(self, config: HybridConfig, parts: FusionParts) -> None:
        super().__init__()
        activation = ACTIVATIONS[config.activation]
        self.backbone = Backbone(config)
        self.encoder = HybridEncoder(
            self.backbone.channels,
            config.encoder_dim,
            config.encoder_ffn_dim,
            config.n_heads,
            config.encoder_layers,
            parts,
            config.dropout,
            config.checkpointing,
        )
        self.neck = nn.ModuleList(self.make_neck(config) for _ in config.strides)
        self.queries = TwoStageQueries(
            config.n_queries,
            config.dim,
            config.n_classes,
            learned_content=False,
            activation=activation,
        )
        self.denoising = self.denoising_queries(
            config.n_classes,
            config.dim,
            config.dn_number,
            config.dn_label_noise,
            config.dn_box_noise,
        )
        for neck in self.neck:
            if isinstance(neck, ConvNorm):
                nn.init.xavier_uniform_(neck.conv.weight)

    def make_neck(self, config: HybridConfig) -> nn.Module:
        """What a map passes between encoder and decoder."""
        return ConvNorm(config.encoder_dim, config.dim)

    def encode(self, images: Tensor, mask: Tensor) -> Levels:
        """Images [B, 3, H, W], RGB in 0..1, and their mask (True on padding) to the tokens of all
        maps, [B, S, C]. Heights and widths are multiples of 32.

        Raises UsageError if they are not.
        """
        maps = self.encoder(self.backbone(images), mask)
        return flatten_maps([neck(x) for neck, x in zip(self.neck, maps, strict=True)], mask)

    def start(
        self,
        levels: Levels,
        targets: list[Targets] | None,
        noise: Noise | None,
    ) -> Start:
        """The queries; in training, those made from `targets` before them, with `noise` in place
        of fresh random numbers if given.
        """
        found = self.queries(levels.content, levels)
        content, boxes, noisy = found.content, found.boxes, None
        if self.training and targets is not None and self.denoising.number > 0:
            dtype = geometry_dtype(levels.content)
            noisy = self.denoising(targets, content.shape[1], dtype, noise)
        if noisy is not None:
            content, boxes = noisy.before(content.to(noisy.content.dtype), boxes)
        elif self.training:
            # the label embedding has to receive a (zero) gradient without denoising queries too:
            # distributed training waits for one from every parameter
            content = content + 0.0 * self.denoising.label_embedding.weight.sum()
        return Start(content, boxes, found.proposals, noisy)

    def make_heads(self, config: HybridConfig, box_dim: int = 4) -> LayerHeads:
        """Heads of its own for every layer of the decoder; `box_dim` numbers say a box."""
        return LayerHeads(
            config.dim,
            config.n_classes,
            config.decoder_layers,
            shared=False,
            activation=ACTIVATIONS[config.activation],
            box_dim=box_dim,
        )

    def start_as_official(self, query_position: nn.Module) -> None:
        """Xavier for the matrices of the network that reads the queries' position."""
        for part in query_position.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
