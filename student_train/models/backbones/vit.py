"""A plain Vision Transformer that carries detection tokens beside the image's patches (YOLOS).

The blocks are timm's, which compute what DeiT's do. Parameter names are those of hustvl/YOLOS
(`models/backbone.py`), which are DeiT's, so checkpoints of both load as they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.errors import CheckpointError
from student_train.models.backbones.swin import initialise_linear
from student_train.models.layers.recompute import run_layer

_SIZES = {"test": (64, 2, 2), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
_NAME = re.compile(r"deit_(test|tiny|small|base)_patch(\d+)_\d+")


@dataclass(frozen=True)
class ViTShape:
    """Width, blocks, heads, and the side of a patch in pixels."""

    dim: int
    depth: int
    heads: int
    patch: int

    @staticmethod
    def parse(name: str) -> ViTShape | None:
        """From timm's name, as `deit_small_patch16_224`; None for any other.

        `test` is no published size: as small as it gets.
        """
        found = _NAME.fullmatch(name)
        return ViTShape(*_SIZES[found[1]], int(found[2])) if found else None

    @staticmethod
    def name_of(dim: int, depth: int, patch: int) -> str | None:
        """The name that `parse` reads, from a checkpoint's sizes; None if no DeiT has them."""
        for size, (width, blocks, _) in _SIZES.items():
            if (width, blocks) == (dim, depth):
                return f"deit_{size}_patch{patch}_224"
        return None


def resize_table(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], antialias: bool = False
) -> Tensor:
    """A position table [N, h x w, C] of a grid `old` (rows, columns) for a grid `new`, bicubic."""
    # while a student is exported `new` may be symbols; a table of the same grid comes out as it was
    if all(type(side) is int for side in new) and old == new:
        return table
    maps = table.mT.unflatten(-1, old)
    # bicubic weights of bf16 would move the places
    maps = maps if maps.dtype == torch.float64 else maps.float()
    maps = F.interpolate(maps, new, mode="bicubic", antialias=antialias)
    return maps.flatten(2).mT.to(table.dtype)


class DeiTNorm(nn.LayerNorm):
    """A layer norm with DeiT's epsilon."""

    def __init__(self, dim: int, **where: Any) -> None:
        super().__init__(dim, eps=1e-6, **where)


class PatchEmbedding(nn.Module):
    """Every square of pixels becomes one token; what is left over at the border is cut off."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to a map [B, C, H // patch, W // patch]."""
        return self.proj(images)


class TokenViT(nn.Module):
    """Class token, patches and detection tokens in one sequence, all attending to all.

    A table of positions is added before the first block, and another one after each block but the
    last where `mid_grid` is given. Tables are made for a grid of patches and resized (bicubic) to
    that of the batch; the rows of class and detection tokens stay. An image smaller than a patch is
    padded with zeros to one.
    """

    def __init__(
        self,
        shape: ViTShape,
        n_tokens: int,
        grid: tuple[int, int],
        mid_grid: tuple[int, int] | None = None,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        """`grid` and `mid_grid` are (rows, columns) of patches."""
        super().__init__()
        self.n_tokens, self.grid, self.mid_grid = n_tokens, grid, mid_grid
        self.patch = shape.patch
        self.checkpointing = checkpointing
        self.patch_embed = PatchEmbedding(shape.dim, shape.patch)
        self.cls_token = _table(1, 1, shape.dim)
        self.det_token = _table(1, n_tokens, shape.dim)
        self.pos_embed = _table(1, 1 + math.prod(grid) + n_tokens, shape.dim)
        self.mid_pos_embed = None
        if mid_grid is not None:
            rows = 1 + math.prod(mid_grid) + n_tokens
            self.mid_pos_embed = _table(shape.depth - 1, 1, rows, shape.dim)
        rates = torch.linspace(0, drop_path, shape.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(shape.dim, shape.heads, qkv_bias=True, drop_path=rate, norm_layer=DeiTNorm)
            for rate in rates
        )
        self.norm = DeiTNorm(shape.dim)
        self.apply(initialise_linear)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to the detection tokens [B, n_tokens, C], normed."""
        height, width = images.shape[-2:]
        if height < self.patch or width < self.patch:
            images = F.pad(images, (0, max(0, self.patch - width), 0, max(0, self.patch - height)))
        patches = self.patch_embed(images)
        n_images, grid = patches.shape[0], (patches.shape[2], patches.shape[3])
        x = torch.cat(
            (
                self.cls_token.expand(n_images, -1, -1),
                patches.flatten(2).mT,
                self.det_token.expand(n_images, -1, -1),
            ),
            1,
        )
        x = x + self._positions(self.pos_embed, self.grid, grid)
        places = None
        if self.mid_pos_embed is not None and self.mid_grid is not None:
            places = self._positions(self.mid_pos_embed.flatten(0, 1), self.mid_grid, grid)
        for i, block in enumerate(self.blocks):
            x = run_layer(block, self.checkpointing, x)
            if places is not None and i < len(places):
                x = x + places[i]
        return self.norm(x)[:, -self.n_tokens :]

    def _positions(self, table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Tables [N, 1 + h x w + n_tokens, C] for the batch's grid."""
        first, patches, last = table.split((1, math.prod(old), self.n_tokens), 1)
        return torch.cat((first, resize_table(patches, old, new), last), 1)

    def from_classifier(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """DeiT's parameters under our names; its square position table resized to ours.

        The rows of the detection tokens keep what they have. A distilled DeiT's second token is
        left out, as are all heads. Raises CheckpointError for a table that is no square.
        """
        state = {k: v for k, v in state.items() if k not in ("dist_token",) and "head" not in k}
        table = state.get("pos_embed")
        if table is None:
            return state
        side = math.isqrt(table.shape[1] - 1)
        if side**2 != table.shape[1] - 1:
            # a distilled DeiT has one row more; the official code takes the second for the first
            table = table[:, 1:]
            side = math.isqrt(table.shape[1] - 1)
        if side**2 != table.shape[1] - 1 or table.shape[2] != self.pos_embed.shape[2]:
            raise CheckpointError(
                f"pos_embed has shape {tuple(state['pos_embed'].shape)}: expected the square table "
                f"of an image classifier with {self.pos_embed.shape[2]} channels"
            )
        patches = resize_table(table[:, 1:], (side, side), self.grid)
        tokens = self.pos_embed.detach()[:, -self.n_tokens :].to(table)
        state["pos_embed"] = torch.cat((table[:, :1], patches, tokens), 1)
        return state


def _table(*shape: int) -> nn.Parameter:
    table = nn.Parameter(torch.empty(*shape))
    nn.init.trunc_normal_(table, std=0.02)
    return table
