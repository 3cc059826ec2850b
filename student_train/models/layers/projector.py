"""The projector of LW-DETR and RF-DETR: the maps of several blocks of a plain ViT, all of one
scale, to one map for every level of the decoder (Atten4Vis/LW-DETR,
`models/backbone/projector.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from student_train.models.layers.conv_norm import ConvNorm

Norm = Callable[[int], nn.Module]

SCALES = {"P3": 0.5, "P4": 1.0, "P5": 2.0}
"""level -> its stride in strides of the ViT"""


def channel_norm(dim: int) -> LayerNorm2d:
    """A layer norm over the channels of every place of a map."""
    return LayerNorm2d(dim, eps=1e-6)


class C2f(nn.Module):
    """Half of the channels pass through a chain of pairs of convolutions; all intermediate results
    are concatenated.
    """

    def __init__(self, channels: int, out: int, norm: Norm, n_pairs: int = 3) -> None:
        super().__init__()
        half = out // 2
        self.enter = ConvNorm(channels, 2 * half, activation=nn.SiLU, norm=norm)
        self.leave = ConvNorm((2 + n_pairs) * half, out, activation=nn.SiLU, norm=norm)
        self.pairs = nn.ModuleList(
            nn.Sequential(
                ConvNorm(half, half, 3, activation=nn.SiLU, norm=norm),
                ConvNorm(half, half, 3, activation=nn.SiLU, norm=norm),
            )
            for _ in range(n_pairs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] to [B, out, H, W]."""
        parts = list(self.enter(x).chunk(2, 1))
        for pair in self.pairs:
            parts.append(pair(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Projector(nn.Module):
    """A map for every one of `levels` (`SCALES`), from maps of one stride."""

    def __init__(
        self, channels: tuple[int, ...], dim: int, levels: tuple[str, ...], norm: Norm
    ) -> None:
        super().__init__()
        scales = [SCALES[level] for level in levels]
        self.sampling = nn.ModuleList(
            nn.ModuleList(_sampling(each, scale, norm) for each in channels) for scale in scales
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                C2f(sum(_sampled(each, scale) for each in channels), dim, norm),
                channel_norm(dim),
            )
            for scale in scales
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C_i, H, W] to maps [B, dim, H_l, W_l]."""
        found = []
        for sampling, level in zip(self.sampling, self.levels, strict=True):
            assert isinstance(sampling, nn.ModuleList)
            parts = [sample(x) for sample, x in zip(sampling, maps, strict=True)]
            found.append(level(torch.cat(parts, 1)))
        return found


def _sampling(channels: int, scale: float, norm: Norm) -> nn.Sequential:
    """To a map whose stride is `scale` times as large."""
    out = _sampled(channels, scale)
    if scale == 2:
        return nn.Sequential(ConvNorm(channels, channels, 3, 2, activation=nn.ReLU, norm=norm))
    if scale == 1:
        return nn.Sequential()
    enlarge = nn.ConvTranspose2d(2 * out, out, 2, 2)
    if channels <= 512:
        return nn.Sequential(enlarge)
    return nn.Sequential(ConvNorm(channels, 2 * out, activation=nn.ReLU, norm=norm), enlarge)


def _sampled(channels: int, scale: float) -> int:
    """Channels after `_sampling`: enlarging halves them, or quarters those of a wide ViT."""
    if scale >= 1:
        return channels
    return channels // 4 if channels > 512 else channels // 2
