"""The compiled loops of a CPU: threads, forks, memory; their numbers are held beside torch's."""

import os
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from detr_kernels import deform_attn, deform_attn_fused
from detr_kernels.deform_attn import numba_cpu
from detr_kernels.shapes import Shape, make_fused_inputs, make_inputs

pytest.importorskip("numba", reason="needs the extra `cpu`")

SHAPE = Shape(3, ((6, 5), (2, 3)), heads=5, dim=16, points=3)


def results(seed: int = 0) -> list[torch.Tensor]:
    """Output and gradients of both operators."""
    found = []
    for run, make in ((deform_attn, make_inputs), (deform_attn_fused, make_fused_inputs)):
        inputs = make(SHAPE, "local", seed=seed)
        output = run(*inputs.arguments, backend="numba")
        found += [output.detach(), *torch.autograd.grad(output, inputs.leaves, inputs.grad_output)]
    return found


@pytest.fixture
def threads(monkeypatch):
    """Three threads whatever the work, and torch's own number put back."""
    before = torch.get_num_threads()
    monkeypatch.setattr(numba_cpu, "WORK_A_THREAD", 1)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_change_no_bit(threads):
    shared = results()
    torch.set_num_threads(1)
    for a, b in zip(shared, results(), strict=True):
        assert torch.equal(a, b)


def test_where_tensors_lie_changes_no_bit():
    # other copies of the same numbers, on a heap that others fill: before sums had an order, one
    # call in a few hundred rounded its last rows otherwise
    small = Shape(2, ((8, 11), (4, 6), (2, 3), (1, 2)), heads=2, dim=16, points=4)
    inputs = make_fused_inputs(small, "local")
    numbers = [t.detach() for t in (*inputs.leaves, inputs.reference)]
    sizes = torch.tensor(inputs.spatial_shapes)
    generator = torch.Generator().manual_seed(0)
    expected, others = None, deque(maxlen=100)
    for _ in range(1500):
        others.append(torch.empty(int(torch.randint(1, 3000, (), generator=generator))))
        value, *places = (t.clone() for t in numbers)
        output = numba_cpu.forward(value, sizes, *places)
        grads = numba_cpu.backward(inputs.grad_output, value, sizes, *places, needs_reference=True)
        found = torch.cat([t.flatten() for t in (output, *grads)])
        expected = found if expected is None else expected
        assert torch.equal(found, expected)


def test_a_forked_process_has_threads_of_its_own(threads):
    # a loader's workers are forks of a process that has already run the operator
    inputs = make_inputs(SHAPE)
    sizes = torch.tensor(inputs.spatial_shapes)
    arguments = [t.detach() for t in (inputs.value, sizes, *inputs.leaves[1:])]
    expected = numba_cpu.forward(*arguments, None).numpy().tobytes()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # neither pytest nor torch's threads may run here, only what is tested
        signal.alarm(20)
        same = numba_cpu.forward(*arguments, None).numpy().tobytes() == expected
        os.write(writing, b"same" if same else b"other")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "same"
    assert os.waitpid(child, 0)[1] == 0


def test_several_threads_may_call_at_once(threads):
    expected = [results(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(results, range(4)))
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


def test_an_error_in_a_thread_is_an_error(threads):
    def fails(first, last):
        if first > 0:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        numba_cpu._run(fails, (), 4, 10**9)


def test_no_memory_beyond_outputs_and_gradients():
    inputs = make_fused_inputs(Shape(2, ((24, 20), (6, 5)), heads=4, dim=16))
    results()  # compiled before memory is counted
    with torch.profiler.profile(profile_memory=True) as profile:
        output = deform_attn_fused(*inputs.arguments, backend="numba")
        grads = torch.autograd.grad(output, inputs.leaves, inputs.grad_output)
    taken = sum(max(0, event.self_cpu_memory_usage) for event in profile.events())
    # and a few bytes for the sizes
    assert taken <= sum(t.nbytes for t in (output, *grads)) + 256


def test_numbers_of_a_reference_that_needs_a_gradient_stay_apart_by_head():
    # heads run side by side and share a query's reference
    inputs = make_fused_inputs(SHAPE, "local")
    grads = []
    for backend in ("numba", "torch"):
        reference = inputs.reference.clone().requires_grad_()
        output = deform_attn_fused(*inputs.arguments[:-1], reference, backend=backend)
        grads += torch.autograd.grad(output, reference, inputs.grad_output)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


def test_machine_code_that_cannot_be_kept_is_compiled_anyway(monkeypatch):
    from detr_kernels.deform_attn import numba_kernels

    njit = numba_kernels.njit

    def nowhere(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba_kernels, "njit", nowhere)
    compiled = numba_kernels.compiled(numba_kernels._weigh_row.py_func)
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0]]).numpy()
    weights = scores[0].copy()
    compiled(scores, 0, True, weights)
    assert weights.tolist() == [0.25] * 4
