"""The operator on what the layer's projections give: softmax and locations inside it.

Neither the weights nor the locations are ever stored, forward or backward.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detr_kernels.deform_attn import cpu_fused, numba_cpu
from detr_kernels.deform_attn.backend import resolve
from detr_kernels.deform_attn.checks import check_fused_arguments, check_levels
from detr_kernels.deform_attn.fused_reference import deform_attn_fused_reference
from detr_kernels.deform_attn.levels import shape_rows, shape_tensor
from detr_kernels.deform_attn.precision import exact_dtype, in_autocast_dtype
from detr_kernels.deform_attn.registration import register, register_once_differentiable


def deform_attn_fused(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[Sequence[int]],
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """`deform_attn` with the softmax over its weights and the sum of its locations inside.

    value, spatial_shapes, backend: as in `deform_attn`.
    offsets: [B, Q, H, L, P, 2], x then y: pixels of the level around a reference point; around a
        box, P of them reach its edge.
    logits: [B, Q, H, L, P]; their softmax over L * P is the attention.
    reference: [B, Q, L, 2] points (x, y) or [B, Q, L, 4] boxes (cx, cy, w, h), 0..1 across each
        level's map.

    Returns [B, Q, H * D] in value's dtype, the numbers of

        locations = reference + offsets / (w, h)            # or centre + offsets * extent / (2 P)
        deform_attn(value, spatial_shapes, locations, softmax(logits))

    Offsets and logits may come in any float dtype: the arithmetic is fp32 (fp64 with fp64 values)
    either way, and so is the reference. Their gradients have their dtypes. Under autocast value is
    cast to the autocast dtype. Gradients once, as in `deform_attn`.

    Raises ArgumentError for arguments that do not fit, BackendError where the backend asked for
    cannot run.
    """
    check_fused_arguments(value, spatial_shapes, offsets, logits, reference)
    value = in_autocast_dtype(value)
    exact = exact_dtype(value)
    reference = reference.to(exact)
    if exact != torch.float64:
        # what fp64 would add is lost in the arithmetic, and the kernels read up to fp32
        offsets, logits = (
            t.to(exact) if t.dtype == torch.float64 else t for t in (offsets, logits)
        )
    chosen = resolve(backend, value.device, value.dtype)
    if chosen == "torch" and value.device.type != "cpu":
        with torch.autocast(value.device.type, enabled=False):
            return deform_attn_fused_reference(
                value.to(exact),
                shape_rows(spatial_shapes),
                offsets.to(exact),
                logits.to(exact),
                reference,
            ).to(value.dtype)
    shapes = shape_tensor(spatial_shapes, value.device)
    return torch.ops.detr_kernels.deform_attn_fused(
        value, shapes, offsets, logits, reference, chosen
    )


def _forward(
    value: Tensor,
    shapes: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    backend: str,
) -> Tensor:
    if backend == "triton":
        from detr_kernels.deform_attn import triton_forward

        return triton_forward.forward_fused(value, shapes, offsets, logits, reference)
    # once more: under torch.compile the sizes were not known when the arguments were checked
    check_levels(shapes, offsets.shape[3], value.shape[1])
    exact = reference.dtype
    places = offsets.to(exact), logits.to(exact), reference
    if backend == "numba":
        return numba_cpu.forward(value.to(exact), shapes, *places).to(value.dtype)
    return cpu_fused.forward(value.to(exact), shape_rows(shapes), *places).to(value.dtype)


def _backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    backend: str,
    needs_reference: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend == "triton":
        from detr_kernels.deform_attn import triton_backward

        grad_value, grad_offsets, grad_logits, grad_reference = triton_backward.backward_fused(
            grad_output,
            value,
            shapes,
            offsets,
            logits,
            reference,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            needs_reference=needs_reference,
        )
    else:
        exact = reference.dtype
        grad_output, values = grad_output.to(exact), value.to(exact)
        places = offsets.to(exact), logits.to(exact), reference
        if backend == "numba":
            grads = numba_cpu.backward(
                grad_output, values, shapes, *places, needs_reference=needs_reference
            )
        else:
            grads = cpu_fused.backward(
                grad_output, values, shape_rows(shapes), *places, needs_reference=needs_reference
            )
        grad_value, grad_offsets, grad_logits, grad_reference = grads
    if grad_reference is None:
        # an operator cannot return None
        grad_reference = reference.new_empty(0)
    return (
        grad_value.to(value.dtype),
        grad_offsets.to(offsets.dtype),
        grad_logits.to(logits.dtype),
        grad_reference,
    )


def _fake_forward(
    value: Tensor,
    shapes: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    backend: str,
) -> Tensor:
    batch, _, heads, dim = value.shape
    return value.new_empty(batch, offsets.shape[1], heads * dim)


def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    backend: str,
    needs_reference: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        offsets.new_empty(offsets.shape),
        logits.new_empty(logits.shape),
        reference.new_empty(reference.shape if needs_reference else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(
    ctx: Any, grad_output: Tensor
) -> tuple[Tensor, None, Tensor, Tensor, Tensor | None, None]:
    value, shapes, offsets, logits, reference = ctx.saved_tensors
    needs_reference = ctx.needs_input_grad[4]
    grad_value, grad_offsets, grad_logits, grad_reference = (
        torch.ops.detr_kernels.deform_attn_fused_backward(
            grad_output, value, shapes, offsets, logits, reference, ctx.backend, needs_reference
        )
    )
    grad_reference = grad_reference if needs_reference else None
    return grad_value, None, grad_offsets, grad_logits, grad_reference, None


register(
    "deform_attn_fused",
    "(Tensor value, Tensor shapes, Tensor offsets, Tensor logits, Tensor reference, str backend) "
    "-> Tensor",
    _forward,
    _fake_forward,
)
register(
    "deform_attn_fused_backward",
    "(Tensor grad_output, Tensor value, Tensor shapes, Tensor offsets, Tensor logits, "
    "Tensor reference, str backend, bool needs_reference) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _fake_backward,
)
register_once_differentiable(
    "deform_attn_fused", "deform_attn_fused_backward", _differentiate, _save
)
