"""The public operator on a CPU: values, gradients, what torch knows of it."""

import pytest
import torch

from detr_kernels import BackendError, deform_attn, deform_attn_reference
from detr_kernels.deform_attn import cpu


def test_equals_reference(case, outcome, assert_close, poisoned, cpu_backend):
    tensors = case.tensors(torch.float32)
    found = outcome(lambda v, x, w: deform_attn(v, case.levels, x, w, backend=cpu_backend), tensors)
    exact = tuple(t.detach().double().requires_grad_() for t in tensors)
    expected = outcome(lambda v, x, w: deform_attn_reference(v, case.levels, x, w), exact)
    assert_close(found, expected, 2e-6)


@pytest.mark.parametrize("pixels_per_corner", [0, 10**9], ids=["sorted", "dense"])
@pytest.mark.parametrize("samples_at_once", [1, 10**9], ids=["an-image-a-time", "all-at-once"])
def test_both_backwards(
    case, outcome, assert_close, monkeypatch, pixels_per_corner, samples_at_once
):
    monkeypatch.setattr(cpu, "DENSE_PIXELS_PER_CORNER", pixels_per_corner)
    monkeypatch.setattr(cpu, "SAMPLES_AT_ONCE", samples_at_once)
    tensors = case.tensors(torch.float64)
    found = outcome(lambda v, x, w: deform_attn(v, case.levels, x, w, backend="torch"), tensors)
    expected = outcome(lambda v, x, w: deform_attn_reference(v, case.levels, x, w), tensors)
    # locations of 1e9 pixels keep 1e-7 of one
    assert_close(found, expected, 1e-12)


def test_rows_beyond_float32(plain_case, outcome, assert_close, monkeypatch):
    # counted in fp64 where a table has more rows than fp32 has integers
    monkeypatch.setattr(cpu, "FLOAT32_INTEGERS", 8)
    tensors = plain_case.tensors(torch.float32)
    found = outcome(
        lambda v, x, w: deform_attn(v, plain_case.levels, x, w, backend="torch"), tensors
    )
    expected = outcome(lambda v, x, w: deform_attn_reference(v, plain_case.levels, x, w), tensors)
    assert_close(found, expected, 2e-6)


def test_gradcheck(plain_case, cpu_backend):
    tensors = plain_case.tensors(torch.float64)
    assert torch.autograd.gradcheck(
        lambda v, x, w: deform_attn(v, plain_case.levels, x, w, backend=cpu_backend),
        tensors,
        fast_mode=True,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(plain_case, outcome, assert_close, dtype, cpu_backend):
    tensors = plain_case.tensors(dtype)
    found = outcome(
        lambda v, x, w: deform_attn(v, plain_case.levels, x, w, backend=cpu_backend), tensors
    )
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    exact = tuple(t.detach().double().requires_grad_() for t in tensors)
    expected = outcome(lambda v, x, w: deform_attn_reference(v, plain_case.levels, x, w), exact)
    # one rounding at the end, not one an addition
    assert_close(found, expected, 4e-4 if dtype == torch.float16 else 3e-3)


def test_autocast_keeps_locations_exact(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = deform_attn(value, plain_case.levels, locations, weights)
    assert output.dtype == torch.bfloat16
    exact = deform_attn_reference(value, plain_case.levels, locations, weights)
    torch.testing.assert_close(output.float(), exact, rtol=2**-8, atol=1e-6)
    output.float().sum().backward()
    assert {t.grad.dtype for t in (value, locations, weights)} == {torch.float32}


def test_autocast_leaves_float64(plain_case):
    with torch.autocast("cpu", torch.bfloat16):
        value, locations, weights = plain_case.tensors(torch.float64)
        assert deform_attn(value, plain_case.levels, locations, weights).dtype == torch.float64


def test_shapes_as_tensor_or_pairs(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    expected = deform_attn(value, plain_case.levels, locations, weights)
    for shapes in (
        torch.tensor(plain_case.levels),
        torch.tensor(plain_case.levels, dtype=torch.int32),
        [list(pair) for pair in plain_case.levels],
        [torch.Size(pair) for pair in plain_case.levels],
    ):
        assert torch.equal(deform_attn(value, shapes, locations, weights), expected)


@pytest.mark.slow
@pytest.mark.parametrize("as_tensor", [False, True], ids=["pairs", "tensor"])
def test_compiles_to_one_graph(plain_case, outcome, assert_close, as_tensor):
    tensors = plain_case.tensors(torch.float32)
    shapes = torch.tensor(plain_case.levels) if as_tensor else plain_case.levels

    def run(value, locations, weights):
        return deform_attn(value * 2, shapes, locations, weights) + 1

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(outcome(compiled, tensors), outcome(run, tensors), 0.0)


@pytest.mark.slow
def test_wrong_sizes_found_under_compile(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    shapes = torch.tensor(plain_case.levels) + 1
    torch._dynamo.reset()
    compiled = torch.compile(deform_attn, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="add up to S = 23"):
        compiled(value, shapes, locations, weights)


def test_one_gradient_only(plain_case):
    value, locations, weights = (t.detach() for t in plain_case.tensors(torch.float32))
    value.requires_grad_()
    deform_attn(value, plain_case.levels, locations, weights).sum().backward()
    assert value.grad is not None
    assert locations.grad is None


def test_second_derivative_is_refused(plain_case):
    value, locations, weights = plain_case.tensors(torch.float64)
    output = deform_attn(value, plain_case.levels, locations, weights)
    (grad,) = torch.autograd.grad(output.sum(), value, create_graph=True)
    with pytest.raises(BackendError, match="differentiated once"):
        grad.sum().backward()


def test_a_location_that_is_no_number_spoils_its_own_query_alone(cpu_backend) -> None:
    value, locations = torch.randn(1, 20, 2, 8), torch.rand(1, 3, 2, 1, 4, 2)
    locations[0, 1, 0, 0, 2, 0] = float("nan")
    weights = torch.rand(1, 3, 2, 1, 4)
    output = deform_attn(value, [(4, 5)], locations, weights, backend=cpu_backend)
    spoilt = output.isnan().unflatten(-1, (2, 8))
    assert spoilt[0, 1, 0].all()
    assert spoilt.sum() == 8
