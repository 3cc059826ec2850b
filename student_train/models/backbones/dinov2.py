"""DINOv2 with windows, the backbone of RF-DETR (roboflow/rf-detr, `models/backbone/dinov2.py` and
`dinov2_with_windowed_attn.py`).

The class token is copied into every window. Blocks are timm's with separate projections of queries,
keys and values, as checkpoints store them.

The official list of windowed blocks is all but the *stage numbers* of the taps, and stage i is what
comes out of block i - 1: so blocks 3, 6, 9 see the whole image where the taps stand behind blocks
2, 5, 8, 11. Weights were trained so.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models.backbones.swin import initialise_linear
from student_train.models.backbones.vit import DeiTNorm, PatchEmbedding, resize_table
from student_train.models.backbones.windows import WindowedShape, WindowedViT, cut

# width, blocks, heads
_SIZES = {"dinov2_test": (64, 3, 2), "dinov2_small": (384, 12, 6), "dinov2_base": (768, 12, 12)}
KNOWN = "dinov2_small or dinov2_base"


def dinov2_shape(
    name: str, patch: int, windows: int, stages: tuple[int, ...]
) -> WindowedShape | None:
    """The sizes of a backbone by name; None for an unknown one. `stages` are the tapped blocks,
    counted from 1. `dinov2_test` is no published size: as small as it gets.
    """
    if name not in _SIZES:
        return None
    dim, depth, heads = _SIZES[name]
    taps = tuple(stage - 1 for stage in stages)
    # as the official list has it: see above
    whole = frozenset(stages) | frozenset(range(max(stages, default=0) + 1, depth))
    return WindowedShape(dim, depth, heads, patch, windows, taps, whole)


def dinov2_name(dim: int, depth: int) -> str | None:
    """The name of the backbone with these sizes; None if there is none."""
    return next((name for name, size in _SIZES.items() if size[:2] == (dim, depth)), None)


class SplitAttention(nn.Module):
    """Self-attention whose query, key and value have matrices of their own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """[B, T, C] to the same shape. Masks are timm's, and never asked for here."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.proj(seen.transpose(1, 2).flatten(2))


class WindowedEmbedding(nn.Module):
    """Images to tokens in windows: patches, with a copy of the class token before those of every
    window.
    """

    def __init__(self, shape: WindowedShape, table: int) -> None:
        """`table`: rows and columns of the square table of positions."""
        super().__init__()
        self.windows, self.patch, self.grid = shape.windows, shape.patch, (table, table)
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + table**2, shape.dim))
        # what DINOv2 hid patches behind when it was pretrained: nothing uses it
        self.mask_token = nn.Parameter(torch.zeros(1, shape.dim), requires_grad=False)
        self.patch_embed = PatchEmbedding(shape.dim, shape.patch)
        for token in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B x windows x windows, 1 + patches of a window, C]."""
        patches = self.patch_embed(images).permute(0, 2, 3, 1)  # [B, H, W, C]
        grid = (patches.shape[1], patches.shape[2])
        first, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        # float32 even in a float64 model, as official
        resized = resize_table(table.float(), self.grid, grid, antialias=True)
        windows = cut(patches + resized.to(table).unflatten(1, grid), self.windows)
        # `len` would make a tracer keep the number of images
        class_token = (self.cls_token + first).expand(windows.shape[0], -1, -1)
        return torch.cat((class_token.to(windows), windows), 1)

    @torch.no_grad()
    def fix(self, height: int, width: int) -> None:
        """Keep the table of positions for images of this size in pixels alone: what a forward pass
        would make of it anew, and what exporters have no operation for.
        """
        grid = (height // self.patch, width // self.patch)
        first, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        resized = resize_table(table.float(), self.grid, grid, antialias=True).to(table)
        self.pos_embed = nn.Parameter(torch.cat((first, resized), 1), requires_grad=False)
        self.grid = grid


class WindowedDinov2(WindowedViT):
    """Patches in windows, each with a copy of the class token; a last norm on every map."""

    def __init__(
        self,
        shape: WindowedShape,
        table: int,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        """`table`: rows and columns of the square table of positions."""
        super().__init__(shape, checkpointing)
        self.embedding = WindowedEmbedding(shape, table)
        rates = torch.linspace(0, drop_path, shape.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(_block(shape, rate) for rate in rates)
        self.norm = DeiTNorm(shape.dim)
        self.apply(initialise_linear)
        self.freeze_unused()

    @property
    def counted_blocks(self) -> int:
        """One more than there are up to the last tap: official code adds 1 to a stage's number."""
        return max(self.shape.taps) + 2

    def tokens(self, images: Tensor) -> Tensor:
        """Class token and patches with their places, window by window."""
        return self.embedding(images)

    def patches(self, tokens: Tensor) -> Tensor:
        """Without the class tokens, normed."""
        return self.norm(tokens)[:, 1:]


def _block(shape: WindowedShape, drop_path: float) -> Block:
    block = Block(shape.dim, shape.heads, init_values=1.0, drop_path=drop_path, norm_layer=DeiTNorm)
    block.attn = SplitAttention(shape.dim, shape.heads)
    return block
