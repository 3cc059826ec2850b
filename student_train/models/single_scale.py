"""What Conditional, DAB and DN-DETR have in common: DETR's transformer over one feature map, with a
conditional decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from student_train.models.backbones.backbone import Backbone
from student_train.models.config import TransformerConfig
from student_train.models.layers.conditional_decoder import ConditionalDecoder
from student_train.models.layers.dense_encoder import DenseEncoder
from student_train.models.layers.encoder import Tokens, place_maps
from student_train.models.layers.heads import LayerHeads
from student_train.models.student import Config, Student


@dataclass(frozen=True, kw_only=True)
class SingleScaleConfig(TransformerConfig):
    """A transformer over one map. The default is DC5: the last stage dilated, so its map has stride
    16; without it set `strides` and `output_stride` to 32.
    """

    strides: tuple[int, ...] = (16,)
    """stride of the map taken from the backbone"""
    output_stride: int = 16
    """16 dilates the last stage instead of halving its map (DC5)"""
    temperature: float = 10000.0
    """of the image's position encoding"""

    def problems(self) -> list[str]:
        """More than one map, and a temperature out of range."""
        problems = super().problems()
        if len(self.strides) > 1:
            problems.append(f"{self.family} looks at one map: give one stride, not {self.strides}")
        if self.temperature <= 0:
            problems.append(f"temperature must be above 0, not {self.temperature}")
        return problems


class SingleScaleStudent(Student[Config]):
    """Backbone, 1x1 convolution, dense encoder, conditional decoder, one pair of heads for all
    layers; subclasses have the queries.
    """

    def __init__(self, config: SingleScaleConfig, anchors: bool) -> None:
        """`anchors`: the queries' references are boxes that are refined, and the parts have what
        DAB-DETR added: scaled positions in the encoder, PReLU activations.
        """
        super().__init__()
        sizes = (config.dim, config.ffn_dim, config.n_heads, config.dropout)
        activation = nn.PReLU if anchors else nn.ReLU
        self.temperature = config.temperature
        self.backbone = Backbone(config)
        self.projection = nn.Conv2d(self.backbone.channels[-1], config.dim, 1)
        self.encoder = DenseEncoder(
            config.encoder_layers,
            *sizes,
            activation=activation,
            scaled_position=anchors,
            checkpointing=config.checkpointing,
        )
        self.decoder = ConditionalDecoder(
            config.decoder_layers,
            *sizes,
            activation=activation,
            anchors=anchors,
            checkpointing=config.checkpointing,
        )
        self.heads = LayerHeads(config.dim, config.n_classes, config.decoder_layers, shared=True)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def encode(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tokens]:
        """Memory [B, S, C] and the tokens it was made from.

        `images` is [B, 3, H, W], normalised, each in the upper left corner and zero elsewhere;
        `mask` [B, H, W] is True on padding.
        """
        maps = [self.projection(each) for each in self.backbone(images)]
        tokens = place_maps(maps, mask, None, self.temperature)
        return self.encoder(tokens), tokens


def stride_of(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The stride of the map, which official settings say as `dilation`."""
    if "dilation" not in settings:
        return {}
    stride = 16 if settings["dilation"] else 32
    return {"strides": (stride,), "output_stride": stride}
