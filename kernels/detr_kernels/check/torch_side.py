"""Checks of what torch knows of the operators, and of what only a GPU can do with them."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from detr_kernels.check.numbers import FUSED_NAMES, LIMITS, outcome
from detr_kernels.check.outcome import Check, SkipError, relative_errors
from detr_kernels.deform_attn.fused_op import deform_attn_fused
from detr_kernels.deform_attn.fused_reference import deform_attn_fused_reference
from detr_kernels.deform_attn.module import MultiScaleDeformableAttention
from detr_kernels.shapes import Shape, make_fused_inputs, make_inputs, mapped

TINY = Shape(1, ((4, 3), (2, 2)), heads=2, dim=8, points=2, queries=5)
# a third of an encoder's size, all samples of which fit fp64 memory
ENCODER = Shape(2, ((50, 84), (25, 42), (13, 21), (7, 11)))


def torch_checks(device: torch.device, backend: str) -> Iterator[tuple[str, Check]]:
    """On any device."""
    yield "torch.library.opcheck, function", partial(_opcheck, device, backend)
    yield "torch.library.opcheck, fused", partial(_opcheck_fused, device, backend)
    yield "torch.compile, one graph", partial(_compiles, device, backend)


def gpu_checks(device: torch.device, backend: str) -> Iterator[tuple[str, Check]]:
    """On a GPU."""
    for dtype in LIMITS:
        short = str(dtype).removeprefix("torch.")
        yield f"an encoder against fp64, {short}", partial(_encoder, dtype, device, backend)
    yield "no wait for the GPU", partial(_no_wait, device, backend)
    yield "CUDA graph", partial(_graph, device, backend)
    yield "another stream", partial(_stream, device, backend)
    yield "a second GPU", partial(_second_device, backend)


def _opcheck(device: torch.device, backend: str) -> str:
    inputs = make_inputs(TINY, device=device)
    shapes = torch.tensor(inputs.spatial_shapes, device=device)
    arguments = (inputs.value, shapes, *inputs.leaves[1:], backend)
    return _passes(torch.ops.detr_kernels.deform_attn.default, arguments)


def _opcheck_fused(device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(TINY, device=device)
    shapes = torch.tensor(inputs.spatial_shapes, device=device)
    arguments = (inputs.value, shapes, inputs.offsets, inputs.logits, inputs.reference, backend)
    return _passes(torch.ops.detr_kernels.deform_attn_fused.default, arguments)


def _passes(op: torch._ops.OpOverload, arguments: tuple[object, ...]) -> str:
    # raises where one of its tests fails
    return ", ".join(torch.library.opcheck(op, arguments))


def _compiles(device: torch.device, backend: str) -> str:
    layer = MultiScaleDeformableAttention(16, 2, 2, 2, backend=backend).to(device)
    levels = ((4, 3), (2, 2))
    inputs = [torch.rand(1, n, 16, device=device) for n in (5, 16)]
    reference = torch.rand(1, 5, 2, 2, device=device)

    def gradients(run: Callable[..., Tensor]) -> list[Tensor]:
        output = run(inputs[0], reference, inputs[1], levels)
        grads = torch.autograd.grad(output.square().sum(), list(layer.parameters()))
        return [output.detach(), *grads]

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    names = ("output", *(name for name, _ in layer.named_parameters()))
    return relative_errors(names, gradients(compiled), gradients(layer), 1e-5)


def _encoder(dtype: torch.dtype, device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(ENCODER, "local", dtype=dtype, device=device)
    found = outcome(deform_attn_fused, inputs, backend=backend)
    wanted = outcome(deform_attn_fused_reference, mapped(inputs, Tensor.double))
    # a sample within rounding of a pixel's centre may take its slope from the other side, which
    # no dtype of values changes: offsets have a limit of their own
    slopes = relative_errors(("grad offsets",), found[2:3], wanted[2:3], 1e-2)
    rest = [t for i, t in enumerate(found) if i != 2], [t for i, t in enumerate(wanted) if i != 2]
    names = [name for i, name in enumerate(FUSED_NAMES) if i != 2]
    return f"{relative_errors(names, *rest, LIMITS[dtype])}; {slopes}"


def _no_wait(device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(TINY, device=device)
    outcome(deform_attn_fused, inputs, backend=backend)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome(deform_attn_fused, inputs, backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return "forward and backward queue and return"


def _graph(device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(TINY, device=device)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            outcome(deform_attn_fused, inputs, backend=backend)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = outcome(deform_attn_fused, inputs, backend=backend)
    with torch.no_grad():
        inputs.value.mul_(-2)
    graph.replay()
    wanted = outcome(deform_attn_fused, inputs, backend=backend)
    return relative_errors(FUSED_NAMES, captured, wanted, LIMITS[torch.float32])


def _stream(device: torch.device, backend: str) -> str:
    inputs = make_fused_inputs(ENCODER, "local", device=device)
    wanted = outcome(deform_attn_fused, inputs, backend=backend)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        found = outcome(deform_attn_fused, inputs, backend=backend)
    torch.cuda.current_stream(device).wait_stream(side)
    return relative_errors(FUSED_NAMES, found, wanted, LIMITS[torch.float32])


def _second_device(backend: str) -> str:
    if torch.cuda.device_count() < 2:
        raise SkipError("there is one GPU")
    first = make_fused_inputs(TINY, device="cuda:0")
    # a launch goes to the current GPU unless it is told where the tensors are
    second = mapped(first, lambda t: t.to("cuda:1"))
    found = outcome(deform_attn_fused, second, backend=backend)
    wanted = outcome(deform_attn_fused, first, backend=backend)
    wanted = [t.to("cuda:1") for t in wanted]
    return relative_errors(FUSED_NAMES, found, wanted, LIMITS[torch.float32])
