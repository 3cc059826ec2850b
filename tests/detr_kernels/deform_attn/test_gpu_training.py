"""A training step on a GPU: no waiting, captured, compiled, on other streams and devices, repeated
to the last bit.
"""

import pytest
import torch

from detr_kernels import (
    BackendError,
    MultiScaleDeformableAttention,
    deform_attn,
    deform_attn_fused,
)
from detr_kernels.shapes import Shape, make_fused_inputs, make_inputs, mapped

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

OPS = torch.ops.detr_kernels
TINY = Shape(2, ((4, 3), (1, 1), (2, 5)), heads=2, dim=16, points=2, queries=5)
PHOTO = Shape(2, ((50, 84), (25, 42), (13, 21), (7, 11)))
PATHS = {"function": (make_inputs, deform_attn), "fused": (make_fused_inputs, deform_attn_fused)}


@pytest.fixture(params=PATHS)
def path(request):
    """(inputs of a shape on the GPU, one step on them: output and gradients)."""
    make, run = PATHS[request.param]

    def step(inputs):
        output = run(*inputs.arguments)
        return [output.detach(), *torch.autograd.grad(output, inputs.leaves, inputs.grad_output)]

    return (lambda shape, **options: make(shape, "local", device="cuda", **options)), step


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("as_tensor", [False, True], ids=["pairs", "tensor"])
def test_step_never_waits_for_the_gpu(path, as_tensor):
    make, step = path
    inputs = make(TINY, dtype=torch.bfloat16)
    if as_tensor:
        inputs = inputs._replace(spatial_shapes=torch.tensor(TINY.levels, device="cuda"))
    step(inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_graph_replays(path):
    make, step = path
    inputs = make(TINY)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(inputs)
    with torch.no_grad():
        inputs.value.mul_(-2)
    graph.replay()
    for found, expected in zip(captured, step(inputs), strict=True):
        torch.testing.assert_close(found, expected)


def test_another_stream_gives_the_same(path):
    make, step = path
    inputs = make(PHOTO)
    expected = step(inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = step(inputs)
    torch.cuda.current_stream().wait_stream(side)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one(path):
    make, step = path
    inputs = make(TINY)
    found = step(mapped(inputs, lambda t: t.to("cuda:1")))
    for a, b in zip(found, step(inputs), strict=True):
        assert a.device == torch.device("cuda:1")
        torch.testing.assert_close(a.cpu(), b.cpu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic_mode_repeats_to_the_last_bit(path, dtype):
    make, step = path
    inputs = make(PHOTO, dtype=dtype)
    usual = step(inputs)
    torch.use_deterministic_algorithms(True)
    try:
        first = step(inputs)
        for _ in range(4):
            assert all(torch.equal(a, b) for a, b in zip(first, step(inputs), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(usual, first, strict=True):
        assert (a - b).double().norm() <= 1e-3 * b.double().norm()


def test_second_derivative_is_refused(path):
    make, _ = path
    inputs = make(TINY)
    run = deform_attn if hasattr(inputs, "attention_weights") else deform_attn_fused
    output = run(*inputs.arguments)
    (grad,) = torch.autograd.grad(output.sum(), inputs.value, create_graph=True)
    with pytest.raises(BackendError, match="can be differentiated once"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck():
    inputs, fused = (make(TINY, "local", device="cuda") for make, _ in PATHS.values())
    shapes = torch.tensor(TINY.levels, device="cuda")
    value, *rest = inputs.leaves
    torch.library.opcheck(OPS.deform_attn.default, (value, shapes, *rest, "triton"))
    arguments = (fused.value, shapes, fused.offsets, fused.logits, fused.reference, "triton")
    torch.library.opcheck(OPS.deform_attn_fused.default, arguments)
    torch.library.opcheck(OPS.level_sizes.default, ([4, 3], torch.device("cuda")))


@pytest.mark.filterwarnings("default")  # the compiler's own warnings are not ours
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("as_tensor", [False, True], ids=["pairs", "tensor"])
def test_the_layer_compiles_to_one_graph(as_tensor, mode):
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(64, n_heads=4, n_levels=2, n_points=4).cuda()
    levels = ((4, 6), (2, 3))
    inputs = [torch.randn(2, n, 64, device="cuda") for n in (5, 30)]
    reference = torch.rand(2, 5, 2, 4, device="cuda")
    shapes = torch.tensor(levels, device="cuda") if as_tensor else levels

    def gradients(run):
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(inputs[0], reference, inputs[1], shapes).float().square().sum()
        return [g.clone() for g in torch.autograd.grad(loss, list(layer.parameters()))]

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    for _ in range(3):  # captured at the second, replayed at the third
        found = gradients(compiled)
    for a, b in zip(found, gradients(layer), strict=True):
        assert (a - b).norm() <= 2e-2 * b.norm() + 1e-6


def test_inference_mode_first():
    # the sizes are kept on the GPU: made in inference mode, they must still serve a training step
    shape = Shape(1, ((1, 3), (2, 2), (4, 4)), heads=2, dim=8, points=1, queries=3)
    inputs = make_inputs(shape, device="cuda")
    with torch.inference_mode():
        deform_attn(*inputs.arguments)
    deform_attn(*inputs.arguments).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in inputs.leaves)
