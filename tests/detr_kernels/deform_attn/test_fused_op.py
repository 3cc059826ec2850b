"""The fused operator on a CPU: the numbers of the steps it replaces, and what torch knows of it."""

from functools import partial

import pytest
import torch

from detr_kernels import (
    ArgumentError,
    BackendError,
    deform_attn,
    deform_attn_fused,
    deform_attn_fused_reference,
)
from detr_kernels.deform_attn.fused_reference import attention_weights, sampling_locations

NAMES = ("output", "grad value", "grad offsets", "grad logits", "grad reference")


def gradients(run, tensors, levels):
    output = run(tensors[0], levels, *tensors[1:])
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, generator=generator).to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, tensors, grad)]


def doubled(tensors):
    return tuple(t.detach().double().requires_grad_() for t in tensors)


def assert_near(found, expected, tolerance):
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.shape == b.shape, name
        assert a.isfinite().all(), name
        error = (a.double() - b.double()).norm() / max(b.double().norm().item(), 1e-12)
        assert error <= tolerance, f"{name}: {error:.2e} off"


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_equals_the_steps_in_float64(case, coordinates, poisoned, cpu_backend):
    tensors = case.fused_tensors(torch.float32, coordinates)
    found = gradients(partial(deform_attn_fused, backend=cpu_backend), tensors, case.levels)
    expected = gradients(deform_attn_fused_reference, doubled(tensors), case.levels)
    assert_near(found, expected, 4e-6)


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_equals_the_unfused_operator(plain_case, coordinates, cpu_backend):
    def unfused(value, levels, offsets, logits, reference):
        locations = sampling_locations(reference, offsets, torch.tensor(levels))
        return deform_attn(value, levels, locations, attention_weights(logits), backend=cpu_backend)

    tensors = plain_case.fused_tensors(torch.float64, coordinates)
    found = gradients(partial(deform_attn_fused, backend=cpu_backend), tensors, plain_case.levels)
    assert_near(found, gradients(unfused, tensors, plain_case.levels), 1e-14)


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
@pytest.mark.parametrize("run", [deform_attn_fused, deform_attn_fused_reference])
def test_gradcheck(plain_case, coordinates, run, cpu_backend):
    if run is deform_attn_fused:
        run = partial(run, backend=cpu_backend)
    tensors = plain_case.fused_tensors(torch.float64, coordinates)
    assert torch.autograd.gradcheck(
        lambda value, *rest: run(value, plain_case.levels, *rest), tensors, fast_mode=True
    )


def test_a_reference_that_needs_no_gradient_gets_none(plain_case):
    value, offsets, logits, reference = plain_case.fused_tensors(torch.float32)
    reference = reference.detach()
    deform_attn_fused(value, plain_case.levels, offsets, logits, reference).sum().backward()
    assert reference.grad is None
    assert offsets.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_offsets_and_logits_are_converted_not_computed_with(plain_case, dtype):
    value, offsets, logits, reference = plain_case.fused_tensors(torch.float32)
    halves = [t.detach().to(dtype).requires_grad_() for t in (value, offsets, logits)]
    tensors = (*halves, reference)
    found = gradients(deform_attn_fused, tensors, plain_case.levels)
    assert [t.dtype for t in found] == [*([dtype] * 4), torch.float32]
    expected = gradients(deform_attn_fused_reference, doubled(tensors), plain_case.levels)
    # each result is rounded once
    assert_near(found, expected, 4e-4 if dtype == torch.float16 else 3e-3)


def test_autocast_casts_the_value_alone(plain_case):
    tensors = plain_case.fused_tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = deform_attn_fused(tensors[0], plain_case.levels, *tensors[1:])
    assert output.dtype == torch.bfloat16
    expected = deform_attn_fused_reference(tensors[0], plain_case.levels, *tensors[1:])
    torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=1e-6)
    output.float().sum().backward()
    assert {t.grad.dtype for t in tensors} == {torch.float32}


def test_second_derivative_is_refused(plain_case):
    value, *rest = plain_case.fused_tensors(torch.float64)
    output = deform_attn_fused(value, plain_case.levels, *rest)
    (grad,) = torch.autograd.grad(output.sum(), value, create_graph=True)
    with pytest.raises(BackendError, match="deform_attn_fused can be differentiated once"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda t: t[0], r"value: expected \[B, S, H, D\], got shape \[23, 3, 4\]"),
        (1, lambda t: t[:, :, :2], r"offsets: .*B=2 and H=3 as in value, got \[2, 5, 2, 3, 2, 2\]"),
        (1, lambda t: t.int(), r"offsets: expected float16.*got torch.int32"),
        (2, lambda t: t.flatten(3), r"logits: expected \[B, Q, H, L, P\], got shape"),
        (2, lambda t: t[:, :4], r"logits: expected \[2, 5, 3, 3, 2\], as offsets without"),
        (2, lambda t: t.to("meta"), r"logits: expected on cpu as value is, got meta"),
        (3, lambda t: t[..., :1], r"reference: .*B=2, Q=5, L=3 as in offsets, got \[2, 5, 3, 1\]"),
        (3, lambda t: t[:, :, :2], r"reference: expected .* got \[2, 5, 2, 2\]"),
        (3, lambda t: t[:, :, 0], r"reference: expected \[B, Q, L, 2\] or .* got shape"),
        (3, lambda t: t.to("meta"), r"reference: expected on cpu as value is, got meta"),
    ],
)
def test_refusals_name_the_argument(plain_case, position, change, message):
    tensors = list(plain_case.fused_tensors(torch.float32))
    tensors[position] = change(tensors[position].detach())
    with pytest.raises(ArgumentError, match=message):
        deform_attn_fused(tensors[0], plain_case.levels, *tensors[1:])


def test_levels_that_do_not_fit_are_refused(plain_case):
    value, *rest = plain_case.fused_tensors(torch.float32)
    for levels in (((4, 3), (1, 1), (2, 4)), torch.tensor([(4, 3), (1, 1), (2, 4)])):
        with pytest.raises(ArgumentError, match=r"spatial_shapes: .*S = 23 of value"):
            deform_attn_fused(value, levels, *rest)
