"""Checks of the numbers: both operators against fp64, against each other, and repeated."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detr_kernels.check.outcome import Check, CheckError, relative_errors, require_equal
from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.deform_attn.fused_reference import (
    attention_weights,
    deform_attn_fused_reference,
    sampling_locations,
)
from detr_kernels.deform_attn.op import deform_attn
from detr_kernels.deform_attn.reference import deform_attn_reference
from detr_kernels.errors import ArgumentError, BackendError
from detr_kernels.shapes import (
    FusedInputs,
    Inputs,
    Shape,
    make_fused_inputs,
    make_inputs,
    mapped,
)

# value's dtype -> relative RMS error: fp32 sums, one rounding of each result
LIMITS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 6e-3}
POINTS = Shape(2, ((5, 7), (1, 1), (3, 2)), heads=3, dim=8, points=2)
# sizes that divide nothing, and levels of one pixel
ODD = {
    "30 channels": Shape(2, ((4, 3), (1, 1)), heads=2, dim=30, points=3, queries=5),
    "64 channels": Shape(1, ((4, 3),), heads=2, dim=64, points=1, queries=3),
    "one-pixel levels": Shape(2, ((1, 1), (1, 7), (6, 1)), heads=3, dim=4, points=2, queries=5),
    "one of everything": Shape(1, ((1, 1),), heads=1, dim=1, points=1, queries=1),
    "no queries": Shape(2, ((4, 3),), heads=2, dim=8, points=2, queries=0),
}
UNFUSED_NAMES = ("output", "grad value", "grad locations", "grad weights")
FUSED_NAMES = ("output", "grad value", "grad offsets", "grad logits")


def number_checks(device: torch.device, backend: str) -> Iterator[tuple[str, Check]]:
    """For one backend on one device."""
    for dtype in LIMITS:
        short = str(dtype).removeprefix("torch.")
        yield f"function against fp64, {short}", partial(_function, POINTS, dtype, device, backend)
        yield f"fused against fp64, {short}", partial(_fused, POINTS, dtype, device, backend)
    boxes = Shape(2, POINTS.levels, heads=3, dim=8, points=2, queries=6)
    yield "fused with boxes against fp64", partial(_fused, boxes, torch.float32, device, backend)
    for name, shape in ODD.items():
        yield f"{name}, function", partial(_function, shape, torch.float32, device, backend)
        yield f"{name}, fused", partial(_fused, shape, torch.float32, device, backend)
    yield "all samples out of range", partial(_out_of_range, device, backend)
    yield "fused equals unfused", partial(_fused_equals_unfused, device, backend)
    yield "deterministic mode repeats", partial(_repeats, device, backend)
    yield "second derivative refused", partial(_second_derivative, device, backend)
    yield "wrong sizes refused by name", partial(_refusal, device, backend)


def outcome(
    run: Callable[..., Tensor], inputs: Inputs | FusedInputs, **options: Any
) -> list[Tensor]:
    """Output and gradients."""
    output = run(*inputs.arguments, **options)
    return [output.detach(), *torch.autograd.grad(output, inputs.leaves, inputs.grad_output)]


def _function(shape: Shape, dtype: torch.dtype, device: torch.device, backend: str) -> str:
    inputs = make_inputs(shape, "local", dtype=dtype, device=device)
    found = outcome(deform_attn, inputs, backend=backend)
    wanted = outcome(deform_attn_reference, mapped(inputs, Tensor.double))
    return relative_errors(UNFUSED_NAMES, found, wanted, LIMITS[dtype])


def _fused(shape: Shape, dtype: torch.dtype, device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(shape, "local", dtype=dtype, device=device)
    found = outcome(deform_attn_fused, inputs, backend=backend)
    wanted = outcome(deform_attn_fused_reference, mapped(inputs, Tensor.double))
    return relative_errors(FUSED_NAMES, found, wanted, LIMITS[dtype])


def _out_of_range(device: torch.device, backend: str) -> str:
    inputs = make_inputs(POINTS, device=device)
    away = (inputs.sampling_locations.detach() + 3).requires_grad_()
    found = outcome(deform_attn, inputs._replace(sampling_locations=away), backend=backend)
    for name, tensor in zip(UNFUSED_NAMES, found, strict=True):
        if tensor.count_nonzero():
            raise CheckError(f"{name}: {tensor.count_nonzero().item()} numbers are not zero")
    return "zero, and zero gradients"


def _fused_equals_unfused(device: torch.device, backend: str) -> str:
    fused = make_fused_inputs(POINTS, "local", device=device)

    def composed(
        value: Tensor, levels: Any, offsets: Tensor, logits: Tensor, ref: Tensor
    ) -> Tensor:
        locations = sampling_locations(ref, offsets, torch.tensor(levels, device=device))
        return deform_attn(value, levels, locations, attention_weights(logits), backend=backend)

    found = outcome(deform_attn_fused, fused, backend=backend)
    return relative_errors(FUSED_NAMES, found, outcome(composed, fused), LIMITS[torch.float32])


def _repeats(device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(POINTS, "local", device=device)
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first = outcome(deform_attn_fused, inputs, backend=backend)
        for _ in range(3):
            again = outcome(deform_attn_fused, inputs, backend=backend)
            require_equal(FUSED_NAMES, first, again)
    finally:
        torch.use_deterministic_algorithms(strict)
    return "4 times the same to the last bit"


def _second_derivative(device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(POINTS, device=device)
    output = deform_attn_fused(*inputs.arguments, backend=backend)
    (grad,) = torch.autograd.grad(output.sum(), inputs.value, create_graph=True)
    try:
        grad.sum().backward()
    except BackendError as error:
        return str(error)
    raise CheckError("there was one")


def _refusal(device: torch.device, backend: str) -> str:
    inputs = make_inputs(POINTS, device=device)
    wrong = inputs._replace(spatial_shapes=((5, 7), (1, 1), (3, 3)))
    try:
        deform_attn(*wrong.arguments, backend=backend)
    except ArgumentError as error:
        if str(error).startswith("spatial_shapes: "):
            return str(error)
        raise CheckError(f"the argument is not named: {error}") from error
    raise CheckError("sizes that do not fit were taken")
