"""The public operator, and what torch is told of it: a custom op with fake and autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detr_kernels.deform_attn import cpu
from detr_kernels.deform_attn.backend import resolve
from detr_kernels.deform_attn.checks import check_arguments, check_levels, shape_pairs, shape_tensor
from detr_kernels.deform_attn.reference import deform_attn_reference


def deform_attn(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[Sequence[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159, equation 3) without its projections.

    value: [B, S, H, D], fp16, bf16, fp32 or fp64: the levels' maps, flattened and concatenated.
    spatial_shapes: (h, w) of every level, a sequence of pairs or an integer tensor [L, 2], with
        S = sum of h * w. Pairs are checked against S; a tensor on a GPU is not, which would need a
        wait for it (levels beyond S are then read as zero).
    sampling_locations: [B, Q, H, L, P, 2], x then y, 0..1 across each level's own map (0 and 1 are
        its outer edges). Outside reads as zero.
    attention_weights: [B, Q, H, L, P].
    backend: "auto" (by device and dtype, see `choose_backend`), "triton" or "torch".

    Returns [B, Q, H * D] in value's dtype. Locations and weights are taken in fp32 (fp64 with fp64
    values) whatever value is: bf16 locations would be off by a third of a pixel on a map 167 wide.
    Under autocast value is cast to the autocast dtype. Gradients for value, locations and weights,
    once; sums are fp32 or better.

    Raises ArgumentError for arguments that do not fit, BackendError where the backend asked for
    cannot run.
    """
    check_arguments(value, spatial_shapes, sampling_locations, attention_weights)
    kind = value.device.type
    if torch.is_autocast_enabled(kind) and value.dtype != torch.float64:
        value = value.to(torch.get_autocast_dtype(kind))
    exact = torch.float64 if value.dtype == torch.float64 else torch.float32
    locations, weights = sampling_locations.to(exact), attention_weights.to(exact)
    chosen = resolve(backend, value.device, value.dtype)
    if chosen == "torch" and kind != "cpu":
        with torch.autocast(kind, enabled=False):
            return deform_attn_reference(value, shape_pairs(spatial_shapes), locations, weights)
    shapes = shape_tensor(spatial_shapes, value.device)
    return _deform_attn(value, shapes, locations, weights, chosen)


@torch.library.custom_op("detr_kernels::deform_attn", mutates_args=())
def _deform_attn(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, backend: str
) -> Tensor:
    if backend == "triton":
        from detr_kernels.deform_attn.triton_forward import forward

        return forward(value, shapes, locations, weights)
    # once more: under torch.compile the sizes were not known when the arguments were checked
    check_levels(shapes, locations.shape[3], value.shape[1])
    value, dtype = value.to(locations.dtype), value.dtype
    return cpu.forward(value, shape_pairs(shapes), locations, weights).to(dtype)


@torch.library.custom_op("detr_kernels::deform_attn_backward", mutates_args=())
def _deform_attn_backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from detr_kernels.deform_attn.triton_backward import backward

        return backward(grad_output, value, shapes, locations, weights)
    exact = locations.dtype
    grad_value, grad_locations, grad_weights = cpu.backward(
        grad_output.to(exact), value.to(exact), shape_pairs(shapes), locations, weights
    )
    return grad_value.to(value.dtype), grad_locations, grad_weights


@_deform_attn.register_fake
def _(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, backend: str) -> Tensor:
    batch, _, heads, dim = value.shape
    return value.new_empty(batch, locations.shape[1], heads * dim)


@_deform_attn_backward.register_fake
def _(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
    value, shapes, locations, weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = _deform_attn_backward(
        grad_output, value, shapes, locations, weights, ctx.backend
    )
    return grad_value, None, grad_locations, grad_weights, None


_deform_attn.register_autograd(_differentiate, setup_context=_save)
