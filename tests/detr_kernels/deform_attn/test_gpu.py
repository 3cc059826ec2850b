"""The Triton kernels' numbers on a GPU: the interpreter's tests again, compiled."""

import pytest
import torch

from detr_kernels import (
    MultiScaleDeformableAttention,
    choose_backend,
    deform_attn,
    deform_attn_fused,
    deform_attn_fused_reference,
    deform_attn_reference,
)
from detr_kernels.shapes import LAWS, Shape, make_fused_inputs, make_inputs, mapped

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# value's dtype -> relative RMS error: fp32 sums, one rounding of each result
TOLERANCE = {torch.float32: 5e-6, torch.float16: 4e-4, torch.bfloat16: 3e-3}
PHOTO = Shape(2, ((50, 84), (25, 42), (13, 21), (7, 11)))
PHOTO_BOXES = Shape(2, PHOTO.levels, queries=900)


def doubled(tensors):
    return tuple(t.detach().double().requires_grad_() for t in tensors)


def unfused(run, levels, **options):
    return lambda v, x, w: run(v, levels, x, w, **options)


def fused(run, levels, **options):
    return lambda v, o, s, r: run(v, levels, o, s, r, **options)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_reference(case, outcome, assert_close, poisoned, dtype):
    tensors = case.tensors(dtype, "cuda")
    found = outcome(unfused(deform_attn, case.levels, backend="triton"), tensors)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    expected = outcome(unfused(deform_attn_reference, case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_fused_equals_reference(case, outcome, assert_close, poisoned, dtype, coordinates):
    tensors = case.fused_tensors(dtype, coordinates, "cuda")
    found = outcome(fused(deform_attn_fused, case.levels, backend="triton"), tensors)
    expected = outcome(fused(deform_attn_fused_reference, case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_an_encoder_equals_reference(outcome, assert_close, poisoned, dtype, law):
    inputs = make_inputs(PHOTO, law, dtype=dtype, device="cuda")
    found = outcome(unfused(deform_attn, PHOTO.levels, backend="triton"), inputs.leaves)
    expected = outcome(unfused(deform_attn_reference, PHOTO.levels), doubled(inputs.leaves))
    _assert_photo(assert_close, found, expected, dtype)


@pytest.mark.parametrize("shape", [PHOTO, PHOTO_BOXES], ids=["encoder", "decoder"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_fused_layer_equals_reference(outcome, assert_close, poisoned, dtype, shape):
    inputs = make_fused_inputs(shape, "local", dtype=dtype, device="cuda")
    exact = mapped(inputs, torch.Tensor.double)

    def of(run, inputs, **options):
        return outcome(
            lambda v, o, s: run(v, shape.levels, o, s, inputs.reference, **options), inputs.leaves
        )

    found = of(deform_attn_fused, inputs, backend="triton")
    _assert_photo(assert_close, found, of(deform_attn_fused_reference, exact), dtype)


def _assert_photo(assert_close, found, expected, dtype):
    # a location within rounding of a pixel's centre may take its slope from the other side
    assert_close([*found[:2], found[3]], [*expected[:2], expected[3]], TOLERANCE[dtype])
    assert_close([found[2]], [expected[2]], 1e-2)


def test_fp32_is_as_exact_as_the_reference_in_fp32(outcome):
    inputs = make_inputs(PHOTO, "local", device="cuda")
    exact = outcome(unfused(deform_attn_reference, PHOTO.levels), doubled(inputs.leaves))

    def errors(run):
        found = outcome(unfused(run, PHOTO.levels), inputs.leaves)
        return [(a.double() - b).norm().item() for a, b in zip(found, exact, strict=True)]

    ours, reference = errors(deform_attn), errors(deform_attn_reference)
    for position in (0, 1, 3):  # output, grad value, grad weights
        assert ours[position] <= 1.2 * reference[position]


def test_cuda_tensors_take_triton(plain_case):
    name, reason = choose_backend("cuda")
    assert (name, torch.cuda.get_device_name() in reason) == ("triton", True)
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    auto = deform_attn(value, plain_case.levels, locations, weights)
    by_name = deform_attn(value, plain_case.levels, locations, weights, backend="triton")
    assert torch.equal(auto, by_name)


def test_float64_takes_the_reference(plain_case):
    value, locations, weights = plain_case.tensors(torch.float64, "cuda")
    found = deform_attn(value, plain_case.levels, locations, weights)
    assert torch.equal(found, deform_attn_reference(value, plain_case.levels, locations, weights))
    value, *rest = plain_case.fused_tensors(torch.float64, 4, "cuda")
    found = deform_attn_fused(value, plain_case.levels, *rest)
    assert torch.equal(found, deform_attn_fused_reference(value, plain_case.levels, *rest))


def test_the_torch_backend_keeps_locations_in_fp32(plain_case):
    value, locations, weights = plain_case.tensors(torch.bfloat16, "cuda")
    found = deform_attn(value, plain_case.levels, locations, weights, backend="torch")
    exact = deform_attn_reference(value.float(), plain_case.levels, locations, weights)
    assert torch.equal(found, exact.to(torch.bfloat16))


def test_sizes_beyond_the_values_read_zero(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    sizes = torch.tensor([(4, 3), (1, 1), (3, 5)], device="cuda")
    output = deform_attn(value, sizes, locations, weights)
    without = weights.detach().clone()
    without[:, :, :, 2] = 0
    expected = deform_attn_reference(value, plain_case.levels, locations, without)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert value.grad[:, 13:].count_nonzero() == 0


def test_autocast_keeps_locations_exact(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    with torch.autocast("cuda", torch.bfloat16):
        output = deform_attn(value, plain_case.levels, locations, weights)
    assert output.dtype == torch.bfloat16
    expected = deform_attn_reference(value, plain_case.levels, locations, weights)
    torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=1e-6)
    output.float().sum().backward()
    assert {t.grad.dtype for t in (value, locations, weights)} == {torch.float32}


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_layer_on_the_gpu_equals_the_cpu(coordinates):
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(64, n_heads=4, n_levels=2, n_points=3)
    inputs = torch.randn(2, 5, 64), torch.rand(2, 5, 2, coordinates), torch.randn(2, 30, 64)
    expected = layer(*inputs, [(4, 6), (2, 3)])
    found = layer.cuda()(*(t.cuda() for t in inputs), [(4, 6), (2, 3)])
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
