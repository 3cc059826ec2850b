"""The ViT of LW-DETR, pretrained by its authors with CAE v2 (Atten4Vis/LW-DETR,
`models/backbone/vit.py`).

Its blocks are BEiT's, which timm has: queries and values have biases and keys have none, and both
branches are scaled by a learned vector. Parameter names are the official ones.
"""

from __future__ import annotations

import re

import torch
from timm.models.beit import Block
from torch import Tensor, nn

from student_train.models.backbones.swin import initialise_linear
from student_train.models.backbones.vit import DeiTNorm, PatchEmbedding, resize_table
from student_train.models.backbones.windows import WindowedShape, WindowedViT, cut

_SIZES = {"test": (64, 2), "tiny": (192, 12), "small": (384, 12), "base": (768, 12)}
# blocks -> (taps, blocks within windows), as the official scripts have them
_LAYOUTS = {
    2: ((0, 1), (0,)),
    6: ((1, 3, 5), (0, 2, 4)),
    10: ((2, 4, 5, 9), (0, 1, 3, 6, 7, 9)),
}
_NAME = re.compile(r"cae_vit_(test|tiny|small|base)_(\d+)")
_PATCH, _WINDOWS = 16, 4
# the table was made for 224 px
_TABLE = 14

KNOWN = "cae_vit_tiny_6, cae_vit_tiny_10, cae_vit_small_10 or cae_vit_base_10"


def cae_shape(name: str) -> WindowedShape | None:
    """The sizes behind a name as `cae_vit_tiny_6`: the width, and how many blocks; None for any
    other. `test` is no published size: as small as it gets.
    """
    found = _NAME.fullmatch(name)
    if found is None or int(found[2]) not in _LAYOUTS:
        return None
    depth = int(found[2])
    taps, within = _LAYOUTS[depth]
    whole = frozenset(range(depth)) - frozenset(within)
    dim, heads = _SIZES[found[1]]
    return WindowedShape(dim, depth, heads, _PATCH, _WINDOWS, taps, whole)


def cae_name(dim: int, depth: int) -> str | None:
    """The name that `cae_shape` reads, from a checkpoint's sizes; None if no ViT has them."""
    for size, (width, _) in _SIZES.items():
        if width == dim and depth in _LAYOUTS:
            return f"cae_vit_{size}_{depth}"
    return None


class CaeViT(WindowedViT):
    """Patches of 16 px in 4 x 4 windows; maps are the raw outputs of the tapped blocks."""

    def __init__(
        self, shape: WindowedShape, drop_path: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__(shape, checkpointing)
        self.patch_embed = PatchEmbedding(shape.dim, shape.patch)
        # the first row is a class token's; there is none
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + _TABLE**2, shape.dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        rates = torch.linspace(0, drop_path, shape.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(
                shape.dim,
                shape.heads,
                qkv_bias=True,
                init_values=0.1,
                drop_path=rate,
                norm_layer=DeiTNorm,
            )
            for rate in rates
        )
        self.apply(initialise_linear)
        self.freeze_unused()

    def tokens(self, images: Tensor) -> Tensor:
        """Patches with their places, window by window."""
        patches = self.patch_embed(images).permute(0, 2, 3, 1)  # [B, H, W, C]
        grid = (patches.shape[1], patches.shape[2])
        table = resize_table(self.pos_embed[:, 1:], (_TABLE, _TABLE), grid)
        return cut(patches + table.unflatten(1, grid), self.shape.windows)
