"""Convolutions with their norm and activation, as hybrid encoders and projectors are built from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = type[nn.Module]


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size (or divides it by `stride`), a norm, an
    activation.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = nn.Identity,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_dim, out_dim, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False
        )
        self.norm = norm(out_dim)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_dim, H, W] to [B, out_dim, ceil(H / stride), ceil(W / stride)]."""
        return self.activation(self.norm(self.conv(x)))


class RepConv(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution, each with its norm, added and activated: one 3 x 3
    convolution once trained (RepVGG, Ding et al., CVPR 2021; without its identity branch).
    """

    def __init__(self, dim: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim, 3)
        self.conv2: ConvNorm | None = ConvNorm(dim, dim, 1)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """[B, dim, H, W] to the same shape."""
        y = self.conv1(x)
        return self.activation(y if self.conv2 is None else y + self.conv2(x))

    @torch.no_grad()
    def merge(self) -> None:
        """Add the 1 x 1 kernel to the centre of the 3 x 3 one. Norms are fused already, see
        `fuse_norms`.
        """
        assert self.conv2 is not None
        wide, narrow = self.conv1.conv, self.conv2.conv
        assert wide.bias is not None
        assert narrow.bias is not None
        wide.weight += F.pad(narrow.weight, (1, 1, 1, 1))
        wide.bias += narrow.bias
        self.conv2 = None
