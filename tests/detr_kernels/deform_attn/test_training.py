"""The operators inside a training step: checked by torch, compiled, checkpointed, repeated to the
last bit. (In two processes: tests/student_train/system/test_distributed.py.)
"""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from detr_kernels import MultiScaleDeformableAttention, deform_attn, deform_attn_fused
from detr_kernels.deform_attn import cpu
from detr_kernels.shapes import Shape, make_inputs

OPS = torch.ops.detr_kernels


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# torch's own checker reads .grad of a tensor that has none
opcheck = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.mark.slow
@opcheck
def test_opcheck(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    shapes = torch.tensor(plain_case.levels)
    arguments = (value, shapes, locations, weights, "torch")
    torch.library.opcheck(OPS.deform_attn.default, arguments)
    grad = torch.randn(2, 5, 12)
    without = [t.detach() for t in arguments[:4]]
    torch.library.opcheck(OPS.deform_attn_backward.default, (grad, *without, "torch"))


@pytest.mark.slow
@opcheck
@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_opcheck_of_the_fused_operator(plain_case, coordinates):
    value, *rest = plain_case.fused_tensors(torch.float32, coordinates)
    shapes = torch.tensor(plain_case.levels)
    torch.library.opcheck(OPS.deform_attn_fused.default, (value, shapes, *rest, "torch"))
    grad = torch.randn(2, 5, 12)
    without = [t.detach() for t in (value, shapes, *rest)]
    for needs_reference in (False, True):
        torch.library.opcheck(
            OPS.deform_attn_fused_backward.default,
            (grad, *without, "torch", needs_reference),
        )


def test_opcheck_of_the_sizes():
    torch.library.opcheck(OPS.level_sizes.default, ([4, 3, 1, 1], torch.device("cpu")))


def captured_graphs(run, *arguments):
    """The graphs that a compiler gets of one call, forward only; a break raises."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch.compile(run, fullgraph=True, backend=keep)(*arguments)
    return graphs


def test_pairs_are_no_copy_from_the_host_in_a_compiled_graph(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    (graph,) = captured_graphs(
        lambda *t: deform_attn(t[0], plain_case.levels, *t[1:]), value, locations, weights
    )
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert called == ["detr_kernels.level_sizes", "detr_kernels.deform_attn"]


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_other_image_sizes_compile_too(dynamic):
    layer = MultiScaleDeformableAttention(16, n_heads=2, n_levels=2, n_points=2)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for levels in (((4, 6), (2, 3)), ((5, 6), (3, 3)), ((6, 8), (3, 4))):
        pixels = sum(h * w for h, w in levels)
        inputs = torch.randn(1, pixels, 16), torch.rand(1, pixels, 2, 2), torch.randn(1, pixels, 16)
        torch.testing.assert_close(compiled(*inputs, levels), layer(*inputs, levels))


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
def test_the_layer_compiles_to_one_graph_with_its_gradients(autocast):
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(16, n_heads=2, n_levels=2, n_points=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    levels = ((4, 6), (2, 3))
    inputs = torch.randn(2, 5, 16), torch.rand(2, 5, 2, 4), torch.randn(2, 30, 16), levels

    def gradients(run, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = run(*inputs).float().square().sum()
        return torch.autograd.grad(loss, list(layer.parameters()))

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected = gradients(layer, False)
    for found, exact in zip(gradients(compiled, autocast), expected, strict=True):
        assert (found - exact).norm() <= (1e-2 if autocast else 1e-6) * exact.norm()


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_nothing(plain_case, reentrant):
    tensors = plain_case.fused_tensors(torch.float32)

    def run(*tensors):
        return deform_attn_fused(tensors[0] * 2, plain_case.levels, *tensors[1:])

    def gradients(output):
        return torch.autograd.grad(output, tensors, torch.ones_like(output))

    if reentrant:
        # the reentrant kind works with .backward() alone
        for tensor in tensors:
            tensor.grad = None
        checkpoint(run, *tensors, use_reentrant=True).sum().backward()
        found = [t.grad for t in tensors]
    else:
        found = gradients(checkpoint(run, *tensors, use_reentrant=False))
    for a, b in zip(found, gradients(run(*tensors)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("n_threads", [1, 4])
@pytest.mark.parametrize("pixels_per_corner", [0, 10**9], ids=["sorted", "dense"])
def test_deterministic_mode_repeats_to_the_last_bit(
    monkeypatch, threads, n_threads, pixels_per_corner
):
    monkeypatch.setattr(cpu, "DENSE_PIXELS_PER_CORNER", pixels_per_corner)
    threads(n_threads)
    inputs = make_inputs(Shape(4, ((12, 12), (3, 3)), heads=4, dim=16, queries=150))

    def step():
        output = deform_attn(*inputs[:4])
        return [output, *torch.autograd.grad(output, inputs.leaves, inputs.grad_output)]

    first = step()
    for _ in range(4):
        assert all(torch.equal(a, b) for a, b in zip(first, step(), strict=True))
