"""Sizes and inputs that benchmarks and tests share."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Law = Literal["uniform", "local"]
LAWS: tuple[Law, ...] = ("uniform", "local")

# how far a trained head looks from its reference, in pixels of each level
LOCAL_SPREAD_PX = 3.0


@dataclass(frozen=True, slots=True)
class Shape:
    """One size of the problem; `queries=None` means one query a pixel, as in an encoder."""

    batch: int
    levels: tuple[tuple[int, int], ...]
    heads: int = 8
    dim: int = 32
    points: int = 4
    queries: int | None = None

    @property
    def pixels(self) -> int:
        return sum(h * w for h, w in self.levels)

    @property
    def n_queries(self) -> int:
        return self.pixels if self.queries is None else self.queries

    @property
    def samples(self) -> int:
        """Bilinear samples in all."""
        return self.batch * self.n_queries * self.heads * len(self.levels) * self.points


_PHOTO4 = ((100, 167), (50, 84), (25, 42), (13, 21))  # 800 x 1333, strides 8 to 64
_PHOTO5 = ((200, 334), *_PHOTO4)
_SCENE = ((16, 16), (8, 8), (4, 4))

# DINO's encoder and decoder (900 queries and 200 for denoising) with 4 and 5 scales, two photos
GPU_SHAPES = {
    "enc4": Shape(2, _PHOTO4),
    "dec4": Shape(2, _PHOTO4, queries=1100),
    "enc5": Shape(2, _PHOTO5),
    "dec5": Shape(2, _PHOTO5, queries=1100),
}
# a small student on 128 x 128 scenes, and a decoder layer of DINO on one photo
CPU_SHAPES = {
    "scene-enc": Shape(16, _SCENE, heads=4),
    "scene-dec": Shape(16, _SCENE, heads=4, queries=100),
    "photo-dec": Shape(1, _PHOTO4, queries=900),
}
SHAPES = GPU_SHAPES | CPU_SHAPES


class Inputs(NamedTuple):
    """What `deform_attn` takes, leaves that require gradients, and a gradient of its output."""

    value: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    sampling_locations: Tensor
    attention_weights: Tensor
    grad_output: Tensor

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.sampling_locations, self.attention_weights


def make_inputs(
    shape: Shape,
    law: Law = "uniform",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Inputs:
    """Seeded inputs: value and grad_output of `dtype`, locations and weights in fp32 (or fp64).

    law "uniform": locations anywhere on the map, the worst case for caches. "local": a reference
    point a query (its own pixel in an encoder) plus a normal spread of a few pixels, as trained.
    """
    s = shape
    generator = torch.Generator(device).manual_seed(seed)
    exact = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device=device, dtype=exact)

    grouping = (s.batch, s.n_queries, s.heads, len(s.levels), s.points)
    if law == "uniform":
        locations = torch.rand((*grouping, 2), generator=generator, device=device, dtype=exact)
    else:
        sizes = torch.tensor([(w, h) for h, w in s.levels], device=device, dtype=exact)
        spread = normal(*grouping, 2) * (LOCAL_SPREAD_PX / sizes[:, None])
        locations = _references(s, generator, exact)[:, :, None, None, None] + spread
    weights = normal(*grouping).flatten(3).softmax(-1).view(grouping)
    value = normal(s.batch, s.pixels, s.heads, s.dim).to(dtype)
    grad_output = normal(s.batch, s.n_queries, s.heads * s.dim).to(dtype)
    return Inputs(
        value.requires_grad_(),
        s.levels,
        locations.requires_grad_(),
        weights.requires_grad_(),
        grad_output,
    )


def _references(shape: Shape, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Reference points [B, Q, 2], x then y in 0..1: pixel centres of an encoder, random else."""
    device = generator.device
    if shape.queries is not None:
        sizes = (shape.batch, shape.queries, 2)
        return torch.rand(sizes, generator=generator, device=device, dtype=dtype)
    centres = []
    for h, w in shape.levels:
        y = (torch.arange(h, device=device, dtype=dtype) + 0.5) / h
        x = (torch.arange(w, device=device, dtype=dtype) + 0.5) / w
        centres.append(torch.cartesian_prod(y, x).flip(-1).reshape(-1, 2))
    return torch.cat(centres).expand(shape.batch, -1, -1)
