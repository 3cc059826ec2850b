"""Cases and comparisons that the backends' tests share."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from detr_kernels.deform_attn.backend import interpreted

# the interpreter's tests run in a process of their own, which test_interpreter.py starts
collect_ignore = [] if interpreted() else ["deform_attn/test_triton.py"]

# coordinates: locations, or fused offsets; scores: weights, or fused logits
NAMES = ("output", "grad value", "grad coordinates", "grad scores", "grad reference")


@dataclass(frozen=True)
class Case:
    """An odd corner of the input space, small enough for an interpreter."""

    name: str
    batch: int = 2
    queries: int = 5
    heads: int = 3
    dim: int = 4
    points: int = 2
    levels: tuple[tuple[int, int], ...] = ((4, 3), (1, 1), (2, 5))
    reach: tuple[float, float] = (-0.3, 1.3)  # locations lie between these
    contiguous: bool = True

    def tensors(self, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """value of `dtype`, locations and weights in fp32 (fp64 for fp64), requiring gradients."""
        generator = torch.Generator().manual_seed(7)
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        pixels = sum(h * w for h, w in self.levels)
        low, high = self.reach
        # a multiple of 1/16 is the same number in every dtype
        sizes = (self.batch, pixels, self.heads, self.dim)
        value = torch.randint(-32, 32, sizes, generator=generator) / 16
        grouping = (self.batch, self.queries, self.heads, len(self.levels), self.points)
        locations = torch.rand((*grouping, 2), generator=generator) * (high - low) + low
        weights = torch.randn(grouping, generator=generator)
        tensors = (value.to(dtype), locations.to(exact), weights.to(exact))
        if not self.contiguous:
            tensors = tuple(_strided(tensor) for tensor in tensors)
        placed = [tensor.to(device).requires_grad_() for tensor in tensors]
        return placed[0], placed[1], placed[2]

    def fused_tensors(
        self, dtype: torch.dtype, coordinates: int = 2, device: str = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """value of `dtype`, offsets, logits and reference [.., 2 or 4] as the locations' dtype."""
        value, locations, logits = self.tensors(dtype)
        generator = torch.Generator().manual_seed(8)
        sizes = (self.batch, self.queries, len(self.levels), coordinates)
        reference = torch.rand(sizes, generator=generator).to(locations.dtype)
        # about where `tensors` looks: an offset counts pixels around a point, halves / P of a box
        pixels = torch.tensor([(w, h) for h, w in self.levels])[:, None]
        scale = pixels if coordinates == 2 else 2 * self.points
        offsets = ((locations.detach() - 0.5) * scale).to(locations.dtype)
        tensors = (value, offsets, logits, reference)
        if not self.contiguous:
            tensors = tuple(_strided(tensor.detach()) for tensor in tensors)
        placed = [tensor.detach().to(device).requires_grad_() for tensor in tensors]
        return placed[0], placed[1], placed[2], placed[3]


def _strided(tensor: Tensor) -> Tensor:
    """The same numbers at every second place of a tensor whose axes are stored backwards."""
    order = tuple(reversed(range(tensor.ndim)))
    backwards = tensor.permute(order).contiguous()
    return torch.stack([backwards, backwards + 1], dim=-1)[..., 0].permute(order)


CASES = [
    Case("plain"),
    Case("thirty channels", dim=30, heads=2, queries=3),
    Case("sixty-four channels", dim=64, heads=2, queries=2, points=1),
    Case("dino's head", dim=32, heads=8, points=4, batch=1, queries=3),
    Case("one of everything", batch=1, queries=1, heads=1, dim=1, points=1, levels=((1, 1),)),
    Case("one-pixel levels", levels=((1, 1), (1, 7), (6, 1))),
    Case("all out of range", reach=(2.0, 9.0)),
    Case("far out of range", reach=(-1e9, 1e9)),
    Case("not contiguous", contiguous=False),
    Case("no queries", queries=0),
    Case("no images", batch=0),
    Case("eleven points", points=11, levels=((3, 3),), queries=2),
    Case("twelve points", points=12, levels=((3, 3),), queries=2),
    Case("three points", points=3, queries=2, heads=1, dim=16),
    Case(
        "wide heads, five levels",
        dim=128,
        heads=1,
        batch=1,
        queries=2,
        points=8,
        levels=((4, 3), (1, 1), (2, 5), (1, 2), (3, 1)),
    ),
    Case("more rows than a block", batch=1, queries=23, heads=3, levels=((5, 4),)),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name.replace(" ", "-"))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def plain_case() -> Case:
    return CASES[0]


@pytest.fixture(params=["torch", "numba"])
def cpu_backend(request: pytest.FixtureRequest) -> str:
    """Both of a CPU; numba where its extra is installed."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs the extra `cpu`")
    return request.param


Run = Callable[..., Tensor]


@pytest.fixture
def outcome() -> Callable[[Run, tuple[Tensor, Tensor, Tensor]], list[Tensor]]:
    """Output and the three gradients of run(value, locations, weights)."""

    def compute(run: Run, tensors: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        output = run(*tensors)
        steps = torch.arange(output.numel(), device=output.device).view(output.shape)
        # 13 sixteenths up and down: exact in every dtype
        grad_output = ((steps * 5) % 27 - 13).to(output.dtype) / 16
        return [output.detach(), *torch.autograd.grad(output, tensors, grad_output)]

    return compute


@pytest.fixture
def assert_close() -> Callable[[list[Tensor], list[Tensor], float], None]:
    """Compare output and gradients by relative RMS error; the message names the tensor."""

    def check(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
        for name, a, b in zip(NAMES, found, expected, strict=False):
            assert a.shape == b.shape, name
            assert a.isfinite().all(), name
            error = (a.double() - b.double()).norm().item()
            scale = b.double().norm().item()
            assert error <= tolerance * max(scale, 1e-12), f"{name}: {error / scale:.2e} off"

    return check


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN: what a kernel leaves unwritten shows."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def poison(tensor: Tensor) -> Tensor:
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(empty(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: poison(new_empty(*a, **k)))
