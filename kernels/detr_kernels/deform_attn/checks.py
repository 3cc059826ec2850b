"""What the operator accepts: every refusal names the argument, what was expected and what came."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from detr_kernels.errors import ArgumentError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Pairs = tuple[tuple[int, int], ...]


def check_arguments(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[Sequence[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Raise ArgumentError unless the four fit together.

    Looks at shapes, dtypes and devices, and at the sizes in `spatial_shapes` where reading them
    costs no wait for a GPU: a sequence, or a tensor on the CPU.
    """
    _check_float("value", value, 4, "[B, S, H, D]")
    _check_float("sampling_locations", sampling_locations, 6, "[B, Q, H, L, P, 2]")
    _check_float("attention_weights", attention_weights, 5, "[B, Q, H, L, P]")
    batch, pixels, heads, dim = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    if heads * dim == 0 or levels * points == 0:
        raise ArgumentError(
            "value, sampling_locations: expected at least one head, channel, level and point, got "
            f"H={heads}, D={dim}, L={levels}, P={points}"
        )
    expected = [batch, queries, heads, levels, points, 2]
    if list(sampling_locations.shape) != expected:
        raise ArgumentError(
            f"sampling_locations: expected [B, Q, H, L, P, 2] with B={batch} and H={heads} as in "
            f"value, got {list(sampling_locations.shape)}"
        )
    if list(attention_weights.shape) != expected[:-1]:
        raise ArgumentError(
            f"attention_weights: expected {expected[:-1]}, as sampling_locations without its last "
            f"axis, got {list(attention_weights.shape)}"
        )
    for name, tensor in (
        ("sampling_locations", sampling_locations),
        ("attention_weights", attention_weights),
    ):
        if tensor.device != value.device:
            raise ArgumentError(
                f"{name}: expected on {value.device} as value is, got {tensor.device}"
            )
    check_levels(spatial_shapes, levels, pixels)


def _check_float(name: str, tensor: Tensor, ndim: int, shape: str) -> None:
    if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{name}: expected a tensor {shape}, got {type(tensor).__name__}")
    if tensor.ndim != ndim:
        raise ArgumentError(f"{name}: expected {shape}, got shape {list(tensor.shape)}")
    if tensor.dtype not in FLOATS:
        raise ArgumentError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}"
        )


def check_levels(
    spatial_shapes: Tensor | Sequence[Sequence[int]], levels: int, pixels: int
) -> None:
    """Raise ArgumentError unless there are `levels` positive sizes that add up to `pixels`.

    Of a tensor on a GPU, or under torch.compile, only dtype and shape are looked at.
    """
    if isinstance(spatial_shapes, Tensor):
        if list(spatial_shapes.shape) != [levels, 2] or spatial_shapes.dtype.is_floating_point:
            raise ArgumentError(
                f"spatial_shapes: expected integers [{levels}, 2], one (h, w) for each level of "
                f"sampling_locations, got {spatial_shapes.dtype} {list(spatial_shapes.shape)}"
            )
        if spatial_shapes.device.type != "cpu" or torch.compiler.is_compiling():
            return
        sizes = spatial_shapes.tolist()
    else:
        sizes = spatial_shapes
        if len(sizes) != levels or any(len(size) != 2 for size in sizes):
            raise ArgumentError(
                f"spatial_shapes: expected {levels} (h, w) pairs, one for each level of "
                f"sampling_locations, got {[list(size) for size in sizes]}"
            )
    total = sum(h * w for h, w in sizes)
    if total != pixels or any(h < 1 or w < 1 for h, w in sizes):
        raise ArgumentError(
            "spatial_shapes: expected positive (h, w) whose products add up to S = "
            f"{pixels} of value, got {[list(size) for size in sizes]}, {total} in all"
        )


def shape_pairs(spatial_shapes: Tensor | Sequence[Sequence[int]]) -> Pairs:
    """The sizes as Python integers; from a tensor on a GPU this waits for the GPU."""
    sizes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    return tuple((int(h), int(w)) for h, w in sizes)


def shape_tensor(spatial_shapes: Tensor | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """The sizes as an int64 tensor [L, 2] on `device`, without waiting for it.

    Pairs are copied to a GPU once and kept, so that a step (or a CUDA graph's capture, after one
    warm-up call) makes no copy at all.
    """
    if isinstance(spatial_shapes, Tensor):
        if spatial_shapes.device == device or torch.compiler.is_compiling():
            return spatial_shapes.to(device, torch.int64)
        return _kept(shape_pairs(spatial_shapes), device)
    if device.type == "cpu" or torch.compiler.is_compiling():
        return torch.tensor([list(pair) for pair in spatial_shapes], device=device)
    return _kept(shape_pairs(spatial_shapes), device)


@lru_cache(maxsize=1024)
def _kept(pairs: Pairs, device: torch.device) -> Tensor:
    # a tensor born in inference mode could not serve a training step later
    with torch.inference_mode(False):
        return torch.tensor(pairs, dtype=torch.int64, device=device)
