"""What DINO, Deformable DETR and H-DETR have in common: a deformable transformer over feature maps
of several scales.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from student_train.models.backbones.backbone import Backbone
from student_train.models.config import DeformableConfig
from student_train.models.layers.decoder import DeformableDecoder
from student_train.models.layers.encoder import DeformableEncoder, Tokens, place_maps
from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.neck import Neck
from student_train.models.layers.queries import TwoStageQueries
from student_train.models.student import Config, Student


class MultiScaleStudent(Student[Config]):
    """Backbone, neck and deformable encoder; subclasses have queries, a decoder and its heads."""

    queries: TwoStageQueries
    decoder: DeformableDecoder
    heads: LayerHeads

    def __init__(self, config: DeformableConfig, temperature: float, offset: float) -> None:
        """`temperature` and `offset` are those of the image's position encoding, see `sine_map`."""
        super().__init__()
        self.temperature = temperature
        self.offset = offset
        self.backbone = Backbone(config)
        self.neck = Neck(self.backbone.channels, config.dim, config.n_levels)
        self.level_embedding = nn.Parameter(torch.randn(config.n_levels, config.dim))
        self.encoder = DeformableEncoder(
            config.encoder_layers,
            config.sizes,
            checkpointing=config.checkpointing,
        )

    def encode(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tokens]:
        """Memory [B, S, C] and the tokens it was made from.

        `images` is [B, 3, H, W], normalised, each in the upper left corner and zero elsewhere;
        `mask` [B, H, W] is True on padding.
        """
        maps = self.neck(self.backbone(images))
        tokens = place_maps(maps, mask, self.level_embedding, self.temperature, self.offset)
        return self.encoder(tokens), tokens

    def start_as_official(self) -> None:
        """The official start of what the parts have not set themselves: Xavier for the
        transformer's matrices, and encoder heads that are copies of the decoder's.
        """
        matrices = [
            layer.get_submodule(name).get_parameter("weight")
            for part in (self.encoder, self.decoder)
            for layer in part.layers
            for name in ("linear1", "linear2")
        ]
        for layer in self.decoder.layers:
            matrices.append(layer.get_submodule("self_attn.out_proj").get_parameter("weight"))
        if self.decoder.query_position is not None:
            for layer in self.decoder.query_position.layers:
                matrices.append(layer.get_parameter("weight"))
        for matrix in matrices:
            nn.init.xavier_uniform_(matrix)
        self.queries.start_from(self.heads.classes[0], self.heads.boxes[0])
