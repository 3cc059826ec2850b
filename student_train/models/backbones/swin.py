"""Swin Transformer as the detectors use it: any image size, one normed map per stage.

Written out rather than taken from timm: timm shifts the windows before it pads a map to whole
windows, the official detection code pads first, and the two differ wherever a map is no multiple of
the window. Parameter names are those of the official code (microsoft/Swin-Transformer), so its
checkpoints load as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from student_train.models.layers.recompute import run_layer

_SIZES = {
    # no published size: as small as it gets
    "test": (32, (1, 1, 2, 2), (1, 2, 4, 8)),
    # ViDT's own
    "nano": (48, (2, 2, 6, 2), (3, 6, 12, 24)),
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
_NAME = re.compile(r"swin_(test|nano|tiny|small|base|large)_patch4_window(\d+)_\d+")


@dataclass(frozen=True)
class SwinShape:
    """Width of the first stage, blocks and heads of every stage, and the window's side."""

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int

    @staticmethod
    def parse(name: str) -> SwinShape | None:
        """From timm's name, as `swin_large_patch4_window12_384`; None for any other."""
        found = _NAME.fullmatch(name)
        return SwinShape(*_SIZES[found[1]], int(found[2])) if found else None

    @staticmethod
    def name_of(dim: int, depths: tuple[int, ...], window: int) -> str | None:
        """The name that `parse` reads, from a checkpoint's sizes; None if no Swin has them."""
        for size, (width, blocks, _) in _SIZES.items():
            if (width, blocks) == (dim, depths):
                # windows of 7 were trained at 224 px, those of 12 at 384
                return f"swin_{size}_patch4_window{window}_{32 * window}"
        return None


def _split(x: Tensor, window: int) -> Tensor:
    """[B, H, W, C] to windows [B x N, window^2, C]; H and W are multiples of the window."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // window, window, width // window, window, dim)
    return x.transpose(2, 3).reshape(-1, window * window, dim)


def _join(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `_split`."""
    x = x.view(-1, height // window, width // window, window, window, x.shape[-1])
    return x.transpose(2, 3).reshape(x.shape[0], height, width, -1)


def relative_index(window: int) -> Tensor:
    """For every pair of places in a window, the row of the bias table: LongTensor [window^2,
    window^2].
    """
    place = torch.arange(window)
    y, x = (v.flatten() for v in torch.meshgrid(place, place, indexing="ij"))
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


def shift_mask(height: int, width: int, window: int, shift: int, like: Tensor) -> Tensor:
    """Added to attention after a cyclic shift: -100 between places that were not neighbours, [N,
    window^2, window^2].
    """

    def bands(size: int) -> Tensor:
        place = torch.arange(size, device=like.device)
        return (place >= size - window).long() + (place >= size - shift).long()

    region = bands(height)[:, None] * 3 + bands(width)[None, :]
    region = _split(region[None, :, :, None], window)[..., 0]
    apart = region[:, :, None] != region[:, None, :]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, -100)


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for every relative place."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, n_heads)
        )
        self.register_buffer("relative_position_index", relative_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x` is [B x N, window^2, C], `mask` [N, window^2, window^2] or None."""
        n_windows, area, _ = x.shape
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(1, area, area, self.n_heads).permute(0, 3, 1, 2)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(n_windows // mask.shape[0], 1, 1, 1)
        return self._attend(*self._heads(x), bias)

    def tokens(self, x: Tensor, context: Tensor | None, bias: Tensor | None) -> Tensor:
        """The same projections for tokens that stand in no window: they see each other and all of a
        context.

        `x` is [B, N, C], `context` [B, S, C]; `bias`, [B, 1, 1, S + N], is added to attention.
        """
        seen = x if context is None else torch.cat((context, x), 1)
        q, k, v = self._heads(seen)
        return self._attend(q[:, :, -x.shape[1] :], k, v, bias)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, N, D] of [B, N, C]."""
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Heads [B, H, N, D] to [B, N, C]."""
        bias = None if bias is None else bias.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        if torch.compiler.is_exporting():
            # the operator lays its result out otherwise than the operations that ONNX makes of it
            out = out.clone(memory_format=torch.contiguous_format)
        return self.proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] to the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class WindowBlock(nn.Module):
    """Window attention, shifted by half a window in every second block, then an MLP; norms come
    first.
    """

    def __init__(self, dim: int, n_heads: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, n_heads)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim)

    def attend(self, x: Tensor) -> Tensor:
        """What window attention makes of a normed map [B, H, W, C]: the same shape."""
        _, height, width, _ = x.shape
        window, shift = self.window, self.shift
        y = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        padded = (y.shape[1], y.shape[2])
        mask = None
        if shift:
            y = torch.roll(y, (-shift, -shift), (1, 2))
            mask = shift_mask(*padded, window, shift, y)
        y = _join(self.attn(_split(y, window), mask), window, *padded)
        if shift:
            y = torch.roll(y, (shift, shift), (1, 2))
        return y[:, :height, :width]

    def add(self, x: Tensor, attended: Tensor) -> Tensor:
        """The block's output from its input and what attention made of it, both [B, ..., C]."""
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinBlock(WindowBlock):
    """A block of a map alone."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to the same shape."""
        return self.add(x, self.attend(self.norm1(x)))


def neighbours(x: Tensor) -> Tensor:
    """Four neighbours side by side, column by column.

    [B, H, W, C] to [B, ceil(H/2), ceil(W/2), 4 C].
    """
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    return torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)


class PatchMerging(nn.Module):
    """Halves a map: four neighbours become one place of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to [B, ceil(H/2), ceil(W/2), 2 C]."""
        return self.reduction(self.norm(neighbours(x)))


class SwinStage(nn.Module):
    """Blocks of one width, and the halving that leads to the next stage."""

    def __init__(
        self, dim: int, n_heads: int, window: int, drop_paths: list[float], last: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, n_heads, window, 0 if i % 2 == 0 else window // 2, rate)
            for i, rate in enumerate(drop_paths)
        )
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, x: Tensor, checkpointing: bool = False) -> Tensor:
        """The stage's map [B, H, W, C], before it is halved."""
        for block in self.blocks:
            x = run_layer(block, checkpointing, x)
        return x


class PatchEmbedding(nn.Module):
    """Every 4 x 4 pixels become one place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 4, 4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, ceil(H/4), ceil(W/4), C]."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % 4, 0, -height % 4))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """The backbone. `stages` (0..3) are those whose maps are returned, normed; later ones are not
    built.
    """

    def __init__(
        self,
        shape: SwinShape,
        stages: tuple[int, ...] = (1, 2, 3),
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.checkpointing = checkpointing
        self.patch_embed = PatchEmbedding(shape.dim)
        rates = torch.linspace(0, drop_path, sum(shape.depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for i in range(max(stages) + 1):
            first = sum(shape.depths[:i])
            self.layers.append(
                SwinStage(
                    shape.dim * 2**i,
                    shape.heads[i],
                    shape.window,
                    rates[first : first + shape.depths[i]],
                    last=i == max(stages),
                )
            )
        for i in stages:
            self.add_module(f"norm{i}", nn.LayerNorm(shape.dim * 2**i))
        self.apply(initialise_linear)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] to one map [B, C_i, ceil(H / 4 / 2^i), ...] for every requested stage i."""
        x = self.patch_embed(images)
        maps = []
        for i, stage in enumerate(self.layers):
            assert isinstance(stage, SwinStage)
            x = stage(x, self.checkpointing)
            if i in self.stages:
                maps.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps


def initialise_linear(module: nn.Module) -> None:
    """Swin's start of a linear layer; anything else is left alone."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
