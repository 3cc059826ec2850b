"""The operator on sampling locations and attention weights: public function and registration."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detr_kernels.deform_attn import cpu, numba_cpu
from detr_kernels.deform_attn.backend import resolve
from detr_kernels.deform_attn.checks import check_arguments, check_levels
from detr_kernels.deform_attn.levels import shape_rows, shape_tensor
from detr_kernels.deform_attn.precision import exact_dtype, in_autocast_dtype
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.deform_attn.registration import register, register_once_differentiable


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
        S = sum of h * w; or (h, w, start), [L, 3], where a level begins at token `start`: levels
        may share tokens, so that one map is sampled as several. Integers are checked against S; a
        tensor on a GPU is not, which would need a wait for it (levels beyond S are then read as
        zero).
    sampling_locations: [B, Q, H, L, P, 2], x then y, 0..1 across each level's own map (0 and 1 are
        its outer edges). Outside reads as zero.
    attention_weights: [B, Q, H, L, P].
    backend: "auto" (by device and dtype, see `choose_backend`), "triton", "numba" or "torch".

    Returns [B, Q, H * D] in value's dtype. Locations and weights are taken in fp32 (fp64 with fp64
    values) whatever value is: bf16 locations would be off by a third of a pixel on a map 167 wide.
    Under autocast value is cast to the autocast dtype. Gradients for value, locations and weights,
    once; sums are fp32 or better. Under `torch.use_deterministic_algorithms` gradients repeat to
    the last bit.

    Raises ArgumentError for arguments that do not fit, BackendError where the backend asked for
    cannot run.
    """
    check_arguments(value, spatial_shapes, sampling_locations, attention_weights)
    value = in_autocast_dtype(value)
    exact = exact_dtype(value)
    locations, weights = sampling_locations.to(exact), attention_weights.to(exact)
    chosen = resolve(backend, value.device, value.dtype)
    if chosen == "torch" and value.device.type != "cpu":
        with torch.autocast(value.device.type, enabled=False):
            return deform_attn_reference(
                value.to(exact), shape_rows(spatial_shapes), locations, weights
            ).to(value.dtype)
    shapes = shape_tensor(spatial_shapes, value.device)
    return torch.ops.detr_kernels.deform_attn(value, shapes, locations, weights, chosen)


def _forward(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, backend: str
) -> Tensor:
    if backend == "triton":
        from detr_kernels.deform_attn import triton_forward

        return triton_forward.forward(value, shapes, locations, weights)
    # once more: under torch.compile the sizes were not known when the arguments were checked
    check_levels(shapes, locations.shape[3], value.shape[1])
    value, dtype = value.to(locations.dtype), value.dtype
    if backend == "numba":
        return numba_cpu.forward(value, shapes, locations, weights, None).to(dtype)
    return cpu.forward(value, shape_rows(shapes), locations, weights).to(dtype)


def _backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    locations: Tensor,
    weights: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if backend == "triton":
        from detr_kernels.deform_attn import triton_backward

        return triton_backward.backward(
            grad_output,
            value,
            shapes,
            locations,
            weights,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
    exact = locations.dtype
    grad_output, values = grad_output.to(exact), value.to(exact)
    if backend == "numba":
        grad_value, grad_locations, grad_weights, _ = numba_cpu.backward(
            grad_output, values, shapes, locations, weights, None
        )
    else:
        grad_value, grad_locations, grad_weights = cpu.backward(
            grad_output, values, shape_rows(shapes), locations, weights
        )
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _fake_forward(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, backend: str
) -> Tensor:
    batch, _, heads, dim = value.shape
    return value.new_empty(batch, locations.shape[1], heads * dim)


def _fake_backward(
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
    grad_value, grad_locations, grad_weights = torch.ops.detr_kernels.deform_attn_backward(
        grad_output, value, shapes, locations, weights, ctx.backend
    )
    return grad_value, None, grad_locations, grad_weights, None


register(
    "deform_attn",
    "(Tensor value, Tensor shapes, Tensor locations, Tensor weights, str backend) -> Tensor",
    _forward,
    _fake_forward,
)
register(
    "deform_attn_backward",
    "(Tensor grad_output, Tensor value, Tensor shapes, Tensor locations, Tensor weights, "
    "str backend) -> (Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)
register_once_differentiable("deform_attn", "deform_attn_backward", _differentiate, _save)
