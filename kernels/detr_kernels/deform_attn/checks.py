"""What the operators accept: every refusal names the argument, what was expected and what came."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detr_kernels.deform_attn.levels import placed
from detr_kernels.errors import ArgumentError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_arguments(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[Sequence[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Raise ArgumentError unless the arguments of `deform_attn` fit together.

    Looks at shapes, dtypes and devices, and at the sizes in `spatial_shapes` where reading them
    costs no wait for a GPU: a sequence, or a tensor on the CPU.
    """
    _check_float("value", value, 4, "[B, S, H, D]")
    _check_samples(
        value, ("sampling_locations", sampling_locations), ("attention_weights", attention_weights)
    )
    check_levels(spatial_shapes, sampling_locations.shape[3], value.shape[1])


def check_fused_arguments(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[Sequence[int]],
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
) -> None:
    """Raise ArgumentError unless the arguments of `deform_attn_fused` fit together."""
    _check_float("value", value, 4, "[B, S, H, D]")
    _check_samples(value, ("offsets", offsets), ("logits", logits))
    _check_float("reference", reference, 4, "[B, Q, L, 2] or [B, Q, L, 4]")
    batch, queries, _, levels, _, _ = offsets.shape
    if tuple(reference.shape) not in ((batch, queries, levels, 2), (batch, queries, levels, 4)):
        raise ArgumentError(
            "reference: expected [B, Q, L, 2] or [B, Q, L, 4] with "
            f"B={batch}, Q={queries}, L={levels} as in offsets, got {list(reference.shape)}"
        )
    _check_device("reference", reference, value)
    check_levels(spatial_shapes, levels, value.shape[1])


def check_levels(
    spatial_shapes: Tensor | Sequence[Sequence[int]], levels: int, pixels: int
) -> None:
    """Raise ArgumentError unless there are `levels` levels of positive size that lie within the
    `pixels` tokens of value, and, where they don't say where they start, fill them.

    Of a tensor on a GPU, or under torch.compile, only dtype and shape are looked at.
    """
    if isinstance(spatial_shapes, Tensor):
        shape = list(spatial_shapes.shape)
        if shape not in ([levels, 2], [levels, 3]) or spatial_shapes.dtype.is_floating_point:
            raise ArgumentError(
                f"spatial_shapes: expected integers [{levels}, 2], one (h, w) for each level of "
                f"the samples, or [{levels}, 3], (h, w, start), got {spatial_shapes.dtype} {shape}"
            )
        if spatial_shapes.device.type != "cpu" or torch.compiler.is_compiling():
            return
        rows = spatial_shapes.tolist()
    else:
        rows = spatial_shapes
        if len(rows) != levels or {len(row) for row in rows} not in ({2}, {3}):
            raise ArgumentError(
                f"spatial_shapes: expected {levels} (h, w) pairs, one for each level of the "
                f"samples, or as many (h, w, start), got {[list(row) for row in rows]}"
            )
    shared = len(rows[0]) == 3
    ends = [h * w + start for h, w, start in placed(rows)]
    starts = min(start for _, _, start in placed(rows))
    fits = max(ends) <= pixels if shared else ends[-1] == pixels
    if not fits or any(h < 1 or w < 1 for h, w, *_ in rows) or starts < 0:
        expected = (
            "positive (h, w) from `start` on within"
            if shared
            else "positive (h, w) whose products add up to"
        )
        raise ArgumentError(
            f"spatial_shapes: expected {expected} S = {pixels} of value, got "
            f"{[list(row) for row in rows]}, {max(ends)} in all"
        )


def _check_samples(value: Tensor, places: tuple[str, Tensor], weights: tuple[str, Tensor]) -> None:
    """places [B, Q, H, L, P, 2] and weights [B, Q, H, L, P], each with its argument's name."""
    _check_float(*places, 6, "[B, Q, H, L, P, 2]")
    _check_float(*weights, 5, "[B, Q, H, L, P]")
    batch, _, heads, dim = value.shape
    _, queries, _, levels, points, _ = places[1].shape
    if heads * dim == 0 or levels * points == 0:
        raise ArgumentError(
            f"value, {places[0]}: expected at least one head, channel, level and point, got "
            f"H={heads}, D={dim}, L={levels}, P={points}"
        )
    expected = [batch, queries, heads, levels, points, 2]
    if list(places[1].shape) != expected:
        raise ArgumentError(
            f"{places[0]}: expected [B, Q, H, L, P, 2] with B={batch} and H={heads} as in "
            f"value, got {list(places[1].shape)}"
        )
    if list(weights[1].shape) != expected[:-1]:
        raise ArgumentError(
            f"{weights[0]}: expected {expected[:-1]}, as {places[0]} without its last "
            f"axis, got {list(weights[1].shape)}"
        )
    for name, tensor in (places, weights):
        _check_device(name, tensor, value)


def _check_float(name: str, tensor: Tensor, ndim: int, shape: str) -> None:
    if not isinstance(tensor, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{name}: expected a tensor {shape}, got {type(tensor).__name__}")
    if tensor.ndim != ndim:
        raise ArgumentError(f"{name}: expected {shape}, got shape {list(tensor.shape)}")
    if tensor.dtype not in FLOATS:
        raise ArgumentError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}"
        )


def _check_device(name: str, tensor: Tensor, value: Tensor) -> None:
    if tensor.device != value.device:
        raise ArgumentError(f"{name}: expected on {value.device} as value is, got {tensor.device}")
