"""A plain ViT most of whose blocks attend within windows: what LW-DETR's and RF-DETR's have in
common.

Tokens are kept window by window from the first block to the last, so that a block within windows
costs no copy, and one over the whole image is a reshape (LW-DETR, arXiv 2406.03459, section 3.2,
"window-major feature map organization").
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Container
from dataclasses import dataclass

from torch import Tensor, nn

from student_train.errors import InputSizeError
from student_train.models.layers.recompute import run_layer


@dataclass(frozen=True)
class WindowedShape:
    """Sizes of a windowed ViT."""

    dim: int
    depth: int
    heads: int
    patch: int
    """side of a patch in pixels"""
    windows: int
    """windows along each side of the image"""
    taps: tuple[int, ...]
    """blocks, counted from 0, whose output is a map for the detector"""
    whole: Container[int]
    """blocks that attend over the whole image"""

    @property
    def multiple(self) -> int:
        """What height and width of an image must be multiples of, in pixels."""
        return self.patch * self.windows


def cut(grid: Tensor, windows: int) -> Tensor:
    """A map [B, H, W, C] to windows [B x windows x windows, H / windows x W / windows, C], row by
    row, each row by row.
    """
    tokens = grid.unflatten(2, (windows, -1)).unflatten(1, (windows, -1))
    return tokens.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join(tokens: Tensor, windows: int, height: int, width: int) -> Tensor:
    """What `cut` makes, back to a map [B, C, H, W]."""
    parts = tokens.unflatten(1, (height // windows, width // windows))
    parts = parts.unflatten(0, (-1, windows, windows))
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class WindowedViT(nn.Module, ABC):
    """Blocks over windows; subclasses make the tokens and the maps.

    `shape.multiple` divides the sides of every image. Blocks behind the last tap are kept, frozen,
    because checkpoints have them, and not computed.
    """

    blocks: nn.ModuleList

    def __init__(self, shape: WindowedShape, checkpointing: bool) -> None:
        super().__init__()
        self.shape = shape
        self.checkpointing = checkpointing
        self.channels = (shape.dim,) * len(shape.taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] to a map [B, C, H / patch, W / patch] for every tap.

        Raises InputSizeError for sides that are no multiples of `shape.multiple`.
        """
        height, width = images.shape[-2:]
        multiple = self.shape.multiple
        if height % multiple or width % multiple:
            raise InputSizeError((height, width), multiple)
        tokens = self.tokens(images)
        height, width = height // self.shape.patch, width // self.shape.patch
        maps = []
        for index in range(max(self.shape.taps) + 1):
            tokens = self._attend(index, tokens)
            if index in self.shape.taps:
                maps.append(join(self.patches(tokens), self.shape.windows, height, width))
        return maps

    @abstractmethod
    def tokens(self, images: Tensor) -> Tensor:
        """Images to tokens [B x windows x windows, T, C]."""

    def patches(self, tokens: Tensor) -> Tensor:
        """What detection sees of the tokens: those of patches alone."""
        return tokens

    def freeze_unused(self) -> None:
        """Freeze the blocks behind the last tap: they never have a gradient."""
        for block in self.blocks[max(self.shape.taps) + 1 :]:
            block.requires_grad_(False)

    def depths(self) -> dict[str, int]:
        """Blocks from every parameter to the end of the blocks that are computed, and one more:
        what precedes the first block has the most, what follows the last one 0.
        """
        end = self.counted_blocks + 1
        places = {
            name: re.match(r"(?:blocks\.(\d+)\.|(.*embed))", name)
            for name, _ in self.named_parameters()
        }
        return {
            name: 0 if found is None else end - (int(found[1]) + 1 if found[1] else 0)
            for name, found in places.items()
        }

    @property
    def counted_blocks(self) -> int:
        """Blocks that rates of learning are counted from."""
        return max(self.shape.taps) + 1

    def _attend(self, index: int, tokens: Tensor) -> Tensor:
        block = self.blocks[index]
        if index not in self.shape.whole:
            return run_layer(block, self.checkpointing, tokens)
        image = tokens.unflatten(0, (-1, self.shape.windows**2)).flatten(1, 2)
        return run_layer(block, self.checkpointing, image).reshape(tokens.shape)
