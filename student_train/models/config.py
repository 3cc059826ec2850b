"""Settings that students share, as a ladder of dataclasses: each family's own settings stand on the
highest rung that fits it.

    StudentConfig
      DecoderConfig                queries, or tokens, that a decoder turns into boxes
        TransformerConfig          ... after an encoder over a backbone's maps
          SingleScaleConfig        ... of one scale (`single_scale.py`)
          DeformableConfig         ... of several scales (and SamplingConfig)

Beside the ladder stand `SamplingConfig`, which whoever samples by deformable attention has, and
`ContrastiveConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from student_train.errors import ConfigError
from student_train.models.backbones.backbone import BackboneConfig, TrunkConfig
from student_train.models.layers.encoder import LayerSizes
from student_train.models.output import Form
from student_train.models.pixels import IMAGENET, Pixels


@dataclass(frozen=True, kw_only=True)
class StudentConfig(TrunkConfig):
    """What every student has: a backbone, classes, and a set of predictions."""

    family: ClassVar[str]
    """name of the family, as `student_train.models.FAMILIES` lists it"""
    classification: ClassVar[Form] = "focal"
    """how its logits are read, and the classification form of the loss that trains it"""
    pixels: ClassVar[Pixels] = IMAGENET
    """how pixels are scaled for it"""

    n_classes: int = 91
    """class logits; 91 for COCO's raw category ids. Softmax students have one more, no-object"""
    n_queries: int = 300
    """boxes predicted for every image"""
    top_k: int = 100
    """detections kept for every image when evaluating"""

    def __post_init__(self) -> None:
        if problems := self.problems():
            raise ConfigError(problems)

    @property
    def side_multiple(self) -> int:
        """Heights and widths of batches have to be multiples of this many pixels."""
        return 1

    def problems(self) -> list[str]:
        """One sentence for every setting that cannot be used; families add their own."""
        return self.below_one("n_classes", "n_queries", "top_k")

    def below_one(self, *names: str) -> list[str]:
        """Sentences for those of the named settings that are less than 1."""
        return [
            f"{name} must be at least 1, not {getattr(self, name)}"
            for name in names
            if getattr(self, name) < 1
        ]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(StudentConfig):
    """A decoder of queries."""

    dim: int = 256
    """width of tokens and queries"""
    n_heads: int = 8
    """heads of every attention"""
    decoder_layers: int = 6
    """layers of the decoder, each of which predicts"""
    ffn_dim: int = 2048
    """hidden width of the feed-forward networks"""
    dropout: float = 0.0
    """inside the transformer"""

    def problems(self) -> list[str]:
        """Sizes that do not divide."""
        problems = super().problems()
        problems += (small := self.below_one("dim", "n_heads", "decoder_layers", "ffn_dim"))
        if not small and (self.dim % self.n_heads or self.dim % 32):
            problems.append(
                f"dim must be a multiple of 32 and of n_heads={self.n_heads}, not {self.dim}"
            )
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout must lie in 0..1, not {self.dropout}")
        return problems


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(DecoderConfig, BackboneConfig):
    """A transformer over the maps of a backbone."""

    encoder_layers: int = 6
    """layers of the encoder"""

    def problems(self) -> list[str]:
        """No encoder, and the backbone's own."""
        return super().problems() + self.backbone_problems() + self.below_one("encoder_layers")


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Contrastive denoising: two noised copies of every target, one of which stands for nothing
    (DINO, arXiv 2203.03605, section 3.3)."""

    dn_number: int = 100
    """denoising queries of either kind an image, roughly; 0 switches denoising off"""
    dn_label_noise: float = 0.5
    """twice the share of denoising labels that are replaced"""
    dn_box_noise: float = 1.0
    """how far positives' corners move at most, in half sizes; negatives move up to twice as far"""

    def noise_problems(self) -> list[str]:
        """Noise out of range."""
        problems = []
        if not 0 <= self.dn_label_noise <= 2:
            problems.append(f"dn_label_noise must lie in 0..2, not {self.dn_label_noise}")
        if self.dn_number < 0 or self.dn_box_noise < 0:
            problems.append("dn_number and dn_box_noise must not be negative")
        return problems


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Deformable attention, whatever it samples."""

    attention_backend: str = "auto"
    """deformable attention by triton, torch, or whichever suits the device (auto)"""

    def backend_problems(self) -> list[str]:
        """An unknown backend."""
        if self.attention_backend in ("auto", "triton", "torch"):
            return []
        return [f"attention_backend must be auto, triton or torch, not {self.attention_backend!r}"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(AttentionConfig):
    """Deformable attention with as many points on every level."""

    n_points: int = 4
    """points that a head samples on every level"""

    def sampling_problems(self) -> list[str]:
        """No point, and an unknown backend."""
        few = [f"n_points must be at least 1, not {self.n_points}"] if self.n_points < 1 else []
        return few + self.backend_problems()


@dataclass(frozen=True, kw_only=True)
class DeformableConfig(TransformerConfig, SamplingConfig):
    """A transformer over maps of several scales, sampled by deformable attention."""

    n_levels: int = 4
    """feature maps seen by the transformer; those beyond the backbone's come from stride-2
    convolutions
    """

    @property
    def sizes(self) -> LayerSizes:
        """Those in which the layers of encoder and decoder agree."""
        sides = (self.dim, self.ffn_dim, self.n_heads, self.n_levels, self.n_points)
        return LayerSizes(*sides, self.dropout, self.attention_backend)

    def problems(self) -> list[str]:
        """Levels that are fewer than the backbone's maps."""
        problems = super().problems() + self.sampling_problems() + self.below_one("n_levels")
        if self.n_levels < len(self.strides):
            problems.append(
                f"n_levels={self.n_levels} is less than the {len(self.strides)} maps "
                f"of strides {self.strides}"
            )
        return problems
