"""ViDT: an efficient and effective fully transformer-based object detector (Song et al., ICLR 2022,
arXiv 2110.03921), as naver-ai/vidt's branch `main` computes it (`methods/vidt/detector.py`).

Detection tokens pass through a Swin and come out as the queries of a deformable decoder. There is
no encoder: the decoder samples the Swin's own maps. The tokens predict before the decoder too, so
there is one prediction more than layers, each by heads of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from student_train.errors import ConfigError
from student_train.models.backbones.backbone_weights import load_backbone_weights
from student_train.models.backbones.swin import SwinShape
from student_train.models.backbones.token_swin import TokenSwin
from student_train.models.config import DecoderConfig, SamplingConfig
from student_train.models.layers.decoder import DeformableDecoder
from student_train.models.layers.encoder import LayerSizes, flatten_maps
from student_train.models.layers.heads import LayerHeads
from student_train.models.layers.neck import Neck, projection
from student_train.models.layers.position import geometry_dtype
from student_train.models.layers.weight_decay import undecayed
from student_train.models.output import StudentOutput
from student_train.models.student import Student
from student_train.models.targets import Targets

_N_LEVELS = 4


@dataclass(frozen=True, kw_only=True)
class VidtConfig(DecoderConfig, SamplingConfig):
    """Settings of ViDT. The defaults are the official Swin-S."""

    family: ClassVar[str] = "vidt"

    backbone: str = "swin_small_patch4_window7_224"
    """a Swin; nano, tiny, small and base are the official ones"""
    n_queries: int = 100
    """detection tokens: boxes predicted for every image"""
    ffn_dim: int = 1024
    """hidden width of the decoder's feed-forward networks"""
    dropout: float = 0.1
    """inside the decoder"""
    drop_path: float = 0.3
    """stochastic depth of the Swin, rising to this rate in the last block; official: nano 0, tiny
    0.2, small and base 0.3"""

    def problems(self) -> list[str]:
        """A backbone that is no Swin, stochastic depth out of range."""
        problems = super().problems() + self.sampling_problems()
        if SwinShape.parse(self.backbone) is None:
            problems.append(
                "backbone must be a Swin, as swin_small_patch4_window7_224 or "
                f"swin_nano_patch4_window7_224, not {self.backbone!r}"
            )
        if not 0 <= self.drop_path < 1:
            problems.append(f"drop_path must lie in 0..1, not {self.drop_path}")
        return problems


class Vidt(Student[VidtConfig]):
    """Swin with detection tokens, neck, deformable decoder."""

    def __init__(self, config: VidtConfig) -> None:
        super().__init__()
        self.config = config
        shape = SwinShape.parse(config.backbone)
        if shape is None:
            raise ConfigError(config.problems())
        self.backbone = TokenSwin(
            shape, config.n_queries, config.dim, config.drop_path, config.checkpointing
        )
        if config.backbone_weights is not None:
            load_backbone_weights(self.backbone, config.backbone, config.backbone_weights)
        self.neck = Neck(self.backbone.channels, config.dim, _N_LEVELS)
        self.project_tokens = projection(self.backbone.channels[-2], config.dim)
        self.project_position = projection(config.dim, config.dim)
        self.reference_points = nn.Linear(config.dim, 2)
        # the official code has one, and does not use it
        self.level_embedding = nn.Parameter(torch.randn(_N_LEVELS, config.dim), requires_grad=False)
        self.decoder = DeformableDecoder(
            config.decoder_layers,
            LayerSizes(
                config.dim,
                config.ffn_dim,
                config.n_heads,
                _N_LEVELS,
                config.n_points,
                config.dropout,
                config.attention_backend,
            ),
            refinement="detached",
            predict_input=True,
            checkpointing=config.checkpointing,
        )
        self.heads = LayerHeads(
            config.dim, config.n_classes, config.decoder_layers + 1, shared=False
        )
        self._initialise()

    def _initialise(self) -> None:
        """The official start: Xavier for the decoder, and first boxes that are small."""
        for name, parameter in self.decoder.named_parameters():
            if parameter.ndim > 1 and "cross_attn" not in name:
                nn.init.xavier_uniform_(parameter)
        nn.init.xavier_uniform_(self.reference_points.weight)
        with torch.no_grad():
            self.heads.boxes[0].get_parameter("layers.2.bias")[2:] = -2.0

    def no_weight_decay(self) -> set[str]:
        """The backbone's biases, norms, tokens and their positions."""
        return undecayed(self.backbone, ("det_token", "det_pos_embed"))

    def forward(
        self,
        images: Tensor,
        mask: Tensor,
        targets: list[Targets] | None = None,
        noise: None = None,
    ) -> StudentOutput:
        """Detect: see `Student.forward`. There are no denoising queries. The first of the layers is
        what the backbone's tokens say.
        """
        maps, tokens = self.backbone(images, mask)
        memory = flatten_maps(self.neck(maps), mask)
        position = _project(self.project_position, self.backbone.det_pos_embed)
        position = position.expand(images.shape[0], -1, -1)
        reference = self.reference_points(position).to(geometry_dtype(images)).sigmoid()
        layers = self.decoder(
            _project(self.project_tokens, tokens),
            reference,
            memory.content,
            memory,
            self.heads,
            position=position,
        )
        return StudentOutput(layers)


def _project(project: nn.Module, tokens: Tensor) -> Tensor:
    """Tokens [B, N, C] as a map of one column, so that the norm is over all of them."""
    return project(tokens.mT[..., None])[..., 0].mT
