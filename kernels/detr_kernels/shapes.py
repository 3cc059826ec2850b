"""Sizes and inputs that benchmarks and tests share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

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

    @property
    def coordinates(self) -> int:
        """Of a reference: an encoder's queries have points (2), a decoder's have boxes (4)."""
        return 2 if self.queries is None else 4


_PHOTO4 = ((100, 167), (50, 84), (25, 42), (13, 21))  # 800 x 1333, strides 8 to 64
_PHOTO5 = ((200, 334), *_PHOTO4)
_SQUARE3 = ((80, 80), (40, 40), (20, 20))  # 640 x 640, strides 8 to 32
_SQUARE4 = ((32, 32), (16, 16), (8, 8), (4, 4))
_SCENE = ((16, 16), (8, 8), (4, 4))

GPU_SHAPES = {
    # DINO's encoder and decoder (900 queries and 200 for denoising) with 4 and 5 scales, two photos
    "enc4": Shape(2, _PHOTO4),
    "dec4": Shape(2, _PHOTO4, queries=1100),
    "enc5": Shape(2, _PHOTO5),
    "dec5": Shape(2, _PHOTO5, queries=1100),
    # RT-DETR's decoder (300 queries and 200 for denoising), and its maps under an encoder of the
    # deformable kind, which it lacks
    "rtdetr-enc": Shape(4, _SQUARE3),
    "rtdetr-dec": Shape(4, _SQUARE3, queries=500),
}
CPU_SHAPES = {
    # a small student on 128 x 128 scenes, and a decoder layer of DINO on one photo
    "scene-enc": Shape(16, _SCENE, heads=4),
    "scene-dec": Shape(16, _SCENE, heads=4, queries=100),
    "photo-dec": Shape(1, _PHOTO4, queries=900),
    # DINO on 256 x 256: four maps, and a decoder with 900 queries and 200 for denoising
    "256-enc": Shape(2, _SQUARE4),
    "256-dec": Shape(2, _SQUARE4, queries=1100),
}
# to see that everything runs
SMALL = {"small": Shape(2, ((12, 16), (6, 8)), heads=4, dim=32, queries=50)}
SHAPES = GPU_SHAPES | CPU_SHAPES | SMALL


class Inputs(NamedTuple):
    """What `deform_attn` takes, leaves that require gradients, and a gradient of its output."""

    value: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    sampling_locations: Tensor
    attention_weights: Tensor
    grad_output: Tensor

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self[:-1]

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.sampling_locations, self.attention_weights


class FusedInputs(NamedTuple):
    """The same for `deform_attn_fused`; the reference needs no gradient, as in training."""

    value: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    offsets: Tensor
    logits: Tensor
    reference: Tensor
    grad_output: Tensor

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self[:-1]

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.offsets, self.logits


AnyInputs = TypeVar("AnyInputs", bound=Inputs | FusedInputs)


def mapped(inputs: AnyInputs, change: Callable[[Tensor], Tensor]) -> AnyInputs:
    """Inputs of their own whose tensors are `change` of these, leaves where these are."""

    def apart(field: Any) -> Any:
        if not isinstance(field, Tensor):
            return field
        return change(field.detach()).requires_grad_(field.requires_grad)

    return inputs._make(apart(field) for field in inputs)


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
    draw = _Draw(shape, dtype, device, seed)
    weights = draw.logits().flatten(3).softmax(-1).view(draw.grouping)
    return Inputs(
        draw.value(),
        shape.levels,
        draw.locations(law, draw.centres()).requires_grad_(),
        weights.requires_grad_(),
        draw.grad_output(),
    )


def make_fused_inputs(
    shape: Shape,
    law: Law = "uniform",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FusedInputs:
    """As `make_inputs`, before softmax and reference: logits of `dtype`, offsets and reference
    in fp32 (or fp64), as the layer has them under autocast.
    """
    draw = _Draw(shape, dtype, device, seed)
    centres = draw.centres()
    places = draw.locations(law, centres) - centres[:, :, None, None, None]
    if shape.coordinates == 2:
        reference = centres
        scale = 1 / draw.sizes[:, None]
    else:
        extents = 0.05 + 0.4 * draw.uniform(shape.batch, shape.n_queries, 2)
        reference = torch.cat([centres, extents], dim=-1)
        scale = extents[:, :, None, None, None] * (0.5 / shape.points)
    return FusedInputs(
        draw.value(),
        shape.levels,
        (places / scale).requires_grad_(),
        draw.logits().to(dtype).requires_grad_(),
        reference[:, :, None].expand(-1, -1, len(shape.levels), -1).contiguous(),
        draw.grad_output(),
    )


class _Draw:
    """Random tensors of one problem, from one seed."""

    def __init__(
        self, shape: Shape, dtype: torch.dtype, device: torch.device | str, seed: int
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.generator = torch.Generator(device).manual_seed(seed)
        s = shape
        self.grouping = (s.batch, s.n_queries, s.heads, len(s.levels), s.points)
        self.sizes = torch.tensor([(w, h) for h, w in s.levels], device=device, dtype=self.exact)

    def normal(self, *sizes: int) -> Tensor:
        g = self.generator
        return torch.randn(sizes, generator=g, device=g.device, dtype=self.exact)

    def uniform(self, *sizes: int) -> Tensor:
        g = self.generator
        return torch.rand(sizes, generator=g, device=g.device, dtype=self.exact)

    def value(self) -> Tensor:
        s = self.shape
        return self.normal(s.batch, s.pixels, s.heads, s.dim).to(self.dtype).requires_grad_()

    def grad_output(self) -> Tensor:
        s = self.shape
        return self.normal(s.batch, s.n_queries, s.heads * s.dim).to(self.dtype)

    def logits(self) -> Tensor:
        return self.normal(*self.grouping)

    def centres(self) -> Tensor:
        """[B, Q, 2], x then y in 0..1: pixel centres of an encoder, random in a decoder."""
        s = self.shape
        if s.queries is not None:
            return self.uniform(s.batch, s.queries, 2)
        centres = []
        for h, w in s.levels:
            x, y = (
                (torch.arange(n, device=self.generator.device, dtype=self.exact) + 0.5) / n
                for n in (w, h)
            )
            centres.append(torch.cartesian_prod(y, x).flip(-1).reshape(-1, 2))
        return torch.cat(centres).expand(s.batch, -1, -1)

    def locations(self, law: Law, centres: Tensor) -> Tensor:
        if law == "uniform":
            return self.uniform(*self.grouping, 2)
        spread = self.normal(*self.grouping, 2) * (LOCAL_SPREAD_PX / self.sizes[:, None])
        return centres[:, :, None, None, None] + spread
