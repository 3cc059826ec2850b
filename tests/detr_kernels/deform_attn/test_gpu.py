"""The Triton kernels on a GPU: the interpreter's tests again, compiled, and what only a GPU has."""

import pytest
import torch

from detr_kernels import (
    BackendError,
    MultiScaleDeformableAttention,
    choose_backend,
    deform_attn,
    deform_attn_reference,
)
from detr_kernels.shapes import LAWS, Shape, make_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# value's dtype -> relative RMS error: fp32 sums, one rounding of output and grad value
TOLERANCE = {torch.float32: 5e-6, torch.float16: 4e-4, torch.bfloat16: 3e-3}
PHOTO = Shape(2, ((50, 84), (25, 42), (13, 21), (7, 11)))


def triton(levels):
    return lambda v, x, w: deform_attn(v, levels, x, w, backend="triton")


def reference(levels):
    return lambda v, x, w: deform_attn_reference(v, levels, x, w)


def doubled(tensors):
    value, locations, weights = (t.detach().double().requires_grad_() for t in tensors)
    return value, locations, weights


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_reference(case, outcome, assert_close, poisoned, dtype):
    tensors = case.tensors(dtype, "cuda")
    found = outcome(triton(case.levels), tensors)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    expected = outcome(reference(case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_reference_at_the_size_of_an_encoder(outcome, assert_close, poisoned, dtype, law):
    inputs = make_inputs(PHOTO, law, dtype=dtype, device="cuda")
    found = outcome(triton(inputs.spatial_shapes), inputs.leaves)
    expected = outcome(reference(inputs.spatial_shapes), doubled(inputs.leaves))
    # a location within rounding of a pixel's centre may take its slope from the other side
    assert_close([*found[:2], found[3]], [*expected[:2], expected[3]], TOLERANCE[dtype])
    assert_close([found[2]], [expected[2]], 1e-2)


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


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("as_tensor", [False, True], ids=["pairs", "tensor"])
def test_step_never_waits_for_the_gpu(plain_case, as_tensor):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    shapes = plain_case.levels
    if as_tensor:
        shapes = torch.tensor(shapes, device="cuda")
    deform_attn(value, shapes, locations, weights).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        deform_attn(value, shapes, locations, weights).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


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


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    shapes = torch.tensor(plain_case.levels, device="cuda")
    arguments = (value, shapes, locations, weights, "triton")
    torch.library.opcheck(torch.ops.detr_kernels.deform_attn.default, arguments)


@pytest.mark.filterwarnings("default")  # the compiler's own warnings are not ours
@pytest.mark.parametrize("as_tensor", [False, True], ids=["pairs", "tensor"])
def test_compiles_to_one_graph(plain_case, outcome, assert_close, as_tensor):
    tensors = plain_case.tensors(torch.float32, "cuda")
    shapes = plain_case.levels
    if as_tensor:
        shapes = torch.tensor(shapes, device="cuda")

    def run(value, locations, weights):
        return deform_attn(value * 2, shapes, locations, weights) + 1

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True)
    assert_close(outcome(compiled, tensors), outcome(run, tensors), 1e-6)


def test_cuda_graph_replays(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    leaves = (value, locations, weights)

    def step():
        output = deform_attn(value, plain_case.levels, locations, weights)
        return output, *torch.autograd.grad(output, leaves, torch.ones_like(output))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        value.mul_(-2)
    graph.replay()
    for found, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(found, expected)


def test_autocast_keeps_locations_exact(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    with torch.autocast("cuda", torch.bfloat16):
        output = deform_attn(value, plain_case.levels, locations, weights)
    assert output.dtype == torch.bfloat16
    expected = deform_attn_reference(value, plain_case.levels, locations, weights)
    torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=1e-6)
    output.float().sum().backward()
    assert {t.grad.dtype for t in (value, locations, weights)} == {torch.float32}


def test_layer_on_the_gpu_equals_the_cpu():
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(64, n_heads=4, n_levels=2, n_points=3)
    inputs = torch.randn(2, 5, 64), torch.rand(2, 5, 2, 4), torch.randn(2, 30, 64)
    expected = layer(*inputs, [(4, 6), (2, 3)])
    found = layer.cuda()(*(t.cuda() for t in inputs), [(4, 6), (2, 3)])
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)


def test_deterministic_mode_is_not_ignored(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    output = deform_attn(value, plain_case.levels, locations, weights)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(BackendError, match="deterministic"):
            output.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_inference_mode_first(plain_case):
    # the sizes are kept on the GPU: made in inference mode, they must still serve a training step
    value, locations, weights = plain_case.tensors(torch.float32, "cuda")
    levels = ((1, 3), (2, 2), (4, 4))
    value = value.detach()[:, :23].requires_grad_()
    with torch.inference_mode():
        deform_attn(value, levels, locations, weights)
    deform_attn(value, levels, locations, weights).sum().backward()
