"""Swin with detection tokens beside the image's patches: ViDT's reconfigured attention (section 3).

Blocks, attention and weights are Swin's. The same projections serve tokens, which see each other in
every block and the patches in the last stage alone; patches never see tokens. Parameter names are
those of naver-ai/vidt (`methods/swin_w_ram.py`), which keeps microsoft/Swin's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models.backbones.swin import (
    PatchEmbedding,
    SwinShape,
    WindowBlock,
    initialise_linear,
    neighbours,
)
from student_train.models.layers.position import geometry_dtype, resize_mask, sine_map
from student_train.models.layers.recompute import run_layer

Size = tuple[int, int]


@dataclass(frozen=True)
class Context:
    """What tokens need to know of the patches they see."""

    position: Tensor
    """[B, S, C], added to the patches"""
    bias: Tensor
    """[B, 1, 1, S + N], added to attention: -100 for patches on padding"""


class TokenBlock(WindowBlock):
    """A Swin block for patches and tokens."""

    def __init__(
        self, dim: int, n_heads: int, window: int, shift: int, drop_path: float, position_dim: int
    ) -> None:
        super().__init__(dim, n_heads, window, shift, drop_path)
        self.det_pos_linear = nn.Linear(position_dim, dim)

    def forward(self, x: Tensor, size: Size, position: Tensor, context: Context | None) -> Tensor:
        """[B, H x W + N, C] to the same shape: patches row by row, then tokens.

        `size` is (H, W), `position` [1, N, P] the tokens'. Without a `context` tokens do not see
        patches.
        """
        patches, tokens = _split(self.norm1(x), size)
        tokens = tokens + self.det_pos_linear(position)
        seen = bias = None
        if context is not None:
            seen, bias = patches + context.position.to(patches.dtype), context.bias
        attended = (
            self.attend(patches.unflatten(1, size)).flatten(1, 2),
            self.attn.tokens(tokens, seen, bias),
        )
        return self.add(x, torch.cat(attended, 1))


class TokenMerging(nn.Module):
    """Halves the map of patches; tokens, repeated four times, go through the same projection."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)
        # the official code has these, and does not use them
        self.expansion = nn.Linear(dim, out_dim, bias=False).requires_grad_(False)
        self.norm2 = nn.LayerNorm(dim).requires_grad_(False)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """[B, H x W + N, C] to [B, ceil(H/2) x ceil(W/2) + N, out_dim]."""
        patches, tokens = _split(x, size)
        merged = neighbours(patches.unflatten(1, size)).flatten(1, 2)
        return self.reduction(self.norm(torch.cat((merged, tokens.repeat(1, 1, 4)), 1)))


class TokenStage(nn.Module):
    """Blocks of one width, and the halving after them."""

    def __init__(
        self,
        dim: int,
        out_dim: int,
        n_heads: int,
        window: int,
        drop_paths: list[float],
        position_dim: int,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TokenBlock(dim, n_heads, window, 0 if i % 2 == 0 else window // 2, rate, position_dim)
            for i, rate in enumerate(drop_paths)
        )
        self.downsample = TokenMerging(dim, out_dim)

    def forward(
        self,
        x: Tensor,
        size: Size,
        position: Tensor,
        context: Context | None,
        checkpointing: bool = False,
    ) -> Tensor:
        """Patches and tokens before they are halved; arguments as `TokenBlock`'s."""
        for block in self.blocks:
            x = run_layer(block, checkpointing, x, size, position, context)
        return x


class TokenSwin(nn.Module):
    """The backbone: four stages and one more halving, so its maps have strides 8, 16, 32 and 64."""

    def __init__(
        self,
        shape: SwinShape,
        n_tokens: int,
        position_dim: int,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        """`position_dim` is the width of the tokens' positions and of the coarsest map."""
        super().__init__()
        self.n_tokens = n_tokens
        self.checkpointing = checkpointing
        self.patch_embed = PatchEmbedding(shape.dim)
        self.det_token = nn.Parameter(torch.empty(1, n_tokens, shape.dim))
        self.det_pos_embed = nn.Parameter(torch.empty(1, n_tokens, position_dim))
        rates = torch.linspace(0, drop_path, sum(shape.depths), device="cpu").tolist()
        dims = [shape.dim * 2**i for i in range(len(shape.depths))]
        self.channels = (*dims[1:], position_dim)
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            first = sum(shape.depths[:i])
            out_dim = position_dim if i == len(dims) - 1 else dims[i + 1]
            own = rates[first : first + shape.depths[i]]
            self.layers.append(
                TokenStage(dim, out_dim, shape.heads[i], shape.window, own, position_dim)
            )
        for i in range(1, len(dims)):
            # Swin's norms of its stages: the official code has them, and does not use them
            self.add_module(f"norm{i}", nn.LayerNorm(dims[i]).requires_grad_(False))
        for table in (self.det_token, self.det_pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        self.apply(initialise_linear)

    def forward(self, images: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four maps [B, C_i, H / s_i, W / s_i], not normed, and the last stage's tokens [B, N, C].

        `images` is [B, 3, H, W], `mask` [B, H, W], True on padding.
        """
        x = self.patch_embed(images)
        size = (x.shape[1], x.shape[2])
        x = torch.cat((x.flatten(1, 2), self.det_token.expand(x.shape[0], -1, -1)), 1)
        mask = resize_mask(mask, (max(1, size[0] // 8), max(1, size[1] // 8)))
        maps, tokens = [], x
        for i, stage in enumerate(self.layers):
            assert isinstance(stage, TokenStage)
            last = i == len(self.layers) - 1
            context = self._context(mask, size, x) if last else None
            x = stage(x, size, self.det_pos_embed, context, self.checkpointing)
            patches, tokens = _split(x, size)
            if i > 0:
                maps.append(_map(patches, size))
            x = stage.downsample(x, size)
            size = (-(-size[0] // 2), -(-size[1] // 2))
        maps.append(_map(_split(x, size)[0], size))
        return maps, tokens

    def _context(self, mask: Tensor, size: Size, x: Tensor) -> Context:
        # twice resized, as in the official code: what is nearest may differ from once
        mask = resize_mask(mask, size)
        position = sine_map(mask, x.shape[-1], 10000.0, geometry_dtype(x)).flatten(1, 2)
        blocked = F.pad(mask.flatten(1), (0, self.n_tokens))[:, None, None]
        bias = torch.zeros(blocked.shape, dtype=x.dtype, device=x.device)
        return Context(position, bias.masked_fill(blocked, -100.0))


def _split(x: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Patches [B, H x W, C] and tokens [B, N, C]."""
    n_patches = size[0] * size[1]
    return x[:, :n_patches], x[:, n_patches:]


def _map(patches: Tensor, size: Size) -> Tensor:
    """[B, H x W, C] to [B, C, H, W]."""
    return patches.mT.unflatten(-1, size)
