"""Blocks that fuse neighbouring levels of a hybrid encoder: cross-stage partial (CSP) stacks of
`RepConv`, and what D-FINE builds from them.

lyuwenyu/RT-DETR and Peterande/D-FINE, `hybrid_encoder.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from student_train.models.layers.conv_norm import Activation, ConvNorm, RepConv


class CspRep(nn.Module):
    """Two 1 x 1 projections to `hidden` channels, one of them through a stack of `RepConv`; their
    sum, projected to `out_dim` unless it is that wide already (RT-DETR section 4.2).
    """

    def __init__(
        self, in_dim: int, out_dim: int, hidden: int, n_blocks: int, activation: Activation
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, hidden, activation=activation)
        self.conv2 = ConvNorm(in_dim, hidden, activation=activation)
        self.bottlenecks = nn.Sequential(*(RepConv(hidden, activation) for _ in range(n_blocks)))
        self.conv3: nn.Module = nn.Identity()
        if hidden != out_dim:
            self.conv3 = ConvNorm(hidden, out_dim, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_dim, H, W] to [B, out_dim, H, W]."""
        return self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))


class Gelan(nn.Module):
    """YOLOv9's generalised efficient layer aggregation over `CspRep` (Wang et al., ECCV 2024;
    `RepNCSPELAN4` in D-FINE's code): half of a projection goes through two branches in a row, and
    all of it is concatenated.
    """

    def __init__(
        self, in_dim: int, out_dim: int, branch: int, n_blocks: int, activation: Activation
    ) -> None:
        super().__init__()

        def make_branch(dim: int) -> nn.Sequential:
            return nn.Sequential(
                CspRep(dim, branch, branch, n_blocks, activation),
                ConvNorm(branch, branch, 3, activation=activation),
            )

        # wide enough to be split into halves of `out_dim`
        self.cv1 = ConvNorm(in_dim, 2 * out_dim, activation=activation)
        self.cv2 = make_branch(out_dim)
        self.cv3 = make_branch(branch)
        self.cv4 = ConvNorm(2 * out_dim + 2 * branch, out_dim, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_dim, H, W] to [B, out_dim, H, W]."""
        wide = self.cv1(x)
        first = self.cv2(wide.chunk(2, 1)[1])
        return self.cv4(torch.cat((wide, first, self.cv3(first)), 1))


class SplitDownsample(nn.Sequential):
    """Half the size in two steps without activation: channels mixed, then each halved on its own
    (YOLOv10's spatial-channel decoupled downsampling; `SCDown`).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.add_module("cv1", ConvNorm(dim, dim))
        self.add_module("cv2", ConvNorm(dim, dim, 3, stride=2, groups=dim))
