"""The Triton kernels against the specification, on CPU tensors under Triton's interpreter.

The interpreter is chosen when triton is imported, so these run in a process of their own:
`TRITON_INTERPRET=1 pytest -m interpreter tests/detr_kernels`, which test_interpreter.py starts.
test_gpu.py holds the same tests for a GPU.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detr_kernels import (
    deform_attn,
    deform_attn_fused,
    deform_attn_fused_reference,
    deform_attn_reference,
)

pytestmark = pytest.mark.interpreter

# value's dtype -> relative RMS error: fp32 sums, one rounding of output and grad value
# (to bf16 the interpreter cuts off, where a GPU rounds)
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-4, torch.bfloat16: 6e-3}


def triton(levels):
    return lambda v, x, w: deform_attn(v, levels, x, w, backend="triton")


def reference(levels):
    return lambda v, x, w: deform_attn_reference(v, levels, x, w)


def fused(levels):
    return lambda v, *rest: deform_attn_fused(v, levels, *rest, backend="triton")


def fused_reference(levels):
    return lambda v, *rest: deform_attn_fused_reference(v, levels, *rest)


def doubled(tensors):
    return tuple(t.detach().double().requires_grad_() for t in tensors)


def test_equals_reference(case, outcome, assert_close, poisoned):
    tensors = case.tensors(torch.float32)
    found = outcome(triton(case.levels), tensors)
    expected = outcome(reference(case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(plain_case, outcome, assert_close, poisoned, dtype):
    tensors = plain_case.tensors(dtype)
    found = outcome(triton(plain_case.levels), tensors)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    expected = outcome(reference(plain_case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[dtype])


def test_64_bit_offsets(plain_case, outcome, assert_close, monkeypatch):
    from detr_kernels.deform_attn import triton_backward, triton_common, triton_forward

    def wide(*arguments):
        launch = triton_common.plan(*arguments)
        assert launch.constants["WIDE"] is False
        return launch._replace(constants=launch.constants | {"WIDE": True})

    monkeypatch.setattr(triton_forward, "plan", wide)
    monkeypatch.setattr(triton_backward, "plan", wide)
    tensors = plain_case.tensors(torch.float32)
    found = outcome(triton(plain_case.levels), tensors)
    expected = outcome(reference(plain_case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[torch.float32])


def test_sizes_beyond_the_values_read_zero(plain_case):
    # a tensor of sizes on a GPU is not checked: what lies past the end must not be touched
    value, locations, weights = plain_case.tensors(torch.float32)
    run = torch.ops.detr_kernels.deform_attn
    sizes = torch.tensor([(4, 3), (1, 1), (3, 5)])
    output = run(value, sizes, locations, weights, "triton")
    weights = weights.detach().clone()
    weights[:, :, :, 2] = 0
    expected = deform_attn_reference(value, plain_case.levels, locations, weights)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert value.grad.isfinite().all()
    assert value.grad[:, 13:].count_nonzero() == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_levels_may_share_tokens(plain_case, outcome, assert_close, poisoned, deterministic):
    shared = ((4, 3, 0), (3, 4, 0), (2, 5, 7))
    tensors = plain_case.fused_tensors(torch.float32, 4)
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = outcome(fused(shared), tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    expected = outcome(fused_reference(shared), doubled(tensors))
    assert_close(found, expected, 4e-6)


def test_a_shared_level_beyond_the_values_reads_zero(plain_case):
    value, locations, weights = plain_case.tensors(torch.float32)
    sizes = torch.tensor([(*plain_case.levels[0], 0), (1, 1, -1), (3, 5, 10**6)])
    output = torch.ops.detr_kernels.deform_attn(value, sizes, locations, weights, "triton")
    weights = weights.detach().clone()
    weights[:, :, :, 1:] = 0
    expected = deform_attn_reference(value, plain_case.levels, locations, weights)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_fused_equals_reference(case, coordinates, outcome, assert_close, poisoned):
    tensors = case.fused_tensors(torch.float32, coordinates)
    found = outcome(fused(case.levels), tensors)
    expected = outcome(fused_reference(case.levels), doubled(tensors))
    # rounding moves a position by about 1e-7 of the map, and its weights by as much
    assert_close(found, expected, 4e-6)


def test_fused_takes_what_layers_give_under_autocast(plain_case, outcome, assert_close, poisoned):
    value, offsets, logits, reference = plain_case.fused_tensors(torch.bfloat16)
    halves = tuple(t.detach().bfloat16().requires_grad_() for t in (offsets, logits))
    tensors = (value, *halves, reference)
    found = outcome(fused(plain_case.levels), tensors)
    assert [t.dtype for t in found] == [torch.bfloat16] * 4 + [torch.float32]
    expected = outcome(fused_reference(plain_case.levels), doubled(tensors))
    assert_close(found, expected, TOLERANCE[torch.bfloat16])


def test_fused_reads_slices_where_they_lie(plain_case, outcome, monkeypatch):
    from detr_kernels.deform_attn import triton_common

    value, offsets, logits, reference = plain_case.fused_tensors(torch.float32)
    one_layer = torch.cat([offsets.flatten(2), logits.flatten(2)], dim=-1).detach()
    sliced = (
        one_layer[..., : offsets[0, 0].numel()].view(offsets.shape),
        one_layer[..., offsets[0, 0].numel() :].view(logits.shape),
    )
    per_level = reference.detach()[:, :, :1].expand(-1, -1, reference.shape[2], -1)
    expected = fused(plain_case.levels)(value, offsets, logits, per_level.contiguous())
    assert [triton_common.query_rows(t)[1] for t in sliced] == [one_layer.shape[-1]] * 2
    monkeypatch.setattr(torch.Tensor, "contiguous", _contiguous_already)
    assert torch.equal(fused(plain_case.levels)(value.detach(), *sliced, per_level), expected)


def _contiguous_already(tensor):
    assert tensor.is_contiguous(), "copied"
    return tensor


@pytest.mark.parametrize("scale", [1e4, 1e-30, 0.0])
def test_softmax_of_extreme_logits(plain_case, outcome, assert_close, scale):
    value, offsets, logits, reference = plain_case.fused_tensors(torch.float32)
    tensors = (value, offsets, (logits.detach() * scale).requires_grad_(), reference)
    found = outcome(fused(plain_case.levels), tensors)
    expected = outcome(fused_reference(plain_case.levels), doubled(tensors))
    assert_close(found, expected, 4e-6)


def test_softmax_keeps_its_gradient_far_from_zero(plain_case, outcome, assert_close):
    # the same weights wherever the logits lie
    value, offsets, logits, reference = plain_case.fused_tensors(torch.float32)
    steps = (logits.detach() * 8).round() / 8
    near = outcome(fused(plain_case.levels), (value, offsets, steps.requires_grad_(), reference))
    for shift in (-1e4, 1e4):
        shifted = (steps.detach() + shift).requires_grad_()
        found = outcome(fused(plain_case.levels), (value, offsets, shifted, reference))
        assert_close(found, near, 1e-6)


def test_reference_gets_no_gradient_unasked(plain_case):
    from detr_kernels.deform_attn import triton_backward

    value, *rest = (t.detach() for t in plain_case.fused_tensors(torch.float32))
    grad = torch.ones(2, 5, 12)
    shapes = torch.tensor(plain_case.levels)
    *grads, none = triton_backward.backward_fused(grad, value, shapes, *rest, needs_reference=False)
    assert none is None
    *same, _ = triton_backward.backward_fused(grad, value, shapes, *rest, needs_reference=True)
    assert all(torch.equal(a, b) for a, b in zip(grads, same, strict=True))


def test_several_blocks_of_rows_a_program(plain_case, outcome, assert_close, monkeypatch):
    from detr_kernels.deform_attn import triton_common

    case = replace(plain_case, queries=7, dim=64, points=4, levels=((3, 4),))
    monkeypatch.setattr(triton_common, "MANY_BLOCKS", 1)
    tensors = case.tensors(torch.float32)
    found = outcome(triton(case.levels), tensors)
    assert_close(found, outcome(reference(case.levels), doubled(tensors)), 2e-6)


@settings(
    max_examples=8, deadline=None, suppress_health_check=(HealthCheck.function_scoped_fixture,)
)
@given(
    levels=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5),
    heads=st.integers(1, 3),
    dim=st.sampled_from([1, 3, 16, 30, 33]),
    points=st.integers(1, 5),
    # halves and quarters put samples on pixels, on edges, between and outside
    places=st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 1.25, 0.3]), min_size=2),
)
def test_any_sizes(outcome, assert_close, levels, heads, dim, points, places):
    generator = torch.Generator().manual_seed(3)
    grouping = (1, 2, heads, len(levels), points)
    pixels = sum(h * w for h, w in levels)
    value = torch.randn(1, pixels, heads, dim, generator=generator)
    weights = torch.randn(grouping, generator=generator)
    count = weights.numel() * 2
    locations = torch.tensor((places * count)[:count]).view(*grouping, 2)
    tensors = tuple(t.requires_grad_() for t in (value, locations, weights))
    found = outcome(triton(levels), tensors)
    assert_close(found, outcome(reference(levels), doubled(tensors)), 4e-6)


SMALL = {"heads": 2, "queries": 4, "levels": ((2, 3), (1, 1))}


@pytest.mark.parametrize(
    "changes",
    [{}, {"dim": 6, "points": 3}, {"reach": (2.0, 9.0)}, {"queries": 0}, {"batch": 0}],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic_mode(plain_case, assert_close, poisoned, dtype, changes):
    from detr_kernels.deform_attn import triton_backward

    case = replace(plain_case, **(SMALL | changes))
    value, locations, weights = (t.detach() for t in case.tensors(dtype))
    shapes = torch.tensor(case.levels)
    grad = torch.randn(*weights.shape[:2], case.heads * case.dim).to(dtype)
    arguments = (grad, value, shapes, locations, weights)
    fast = triton_backward.backward(*arguments)
    first = triton_backward.backward(*arguments, deterministic=True)
    assert_close([grad, *first], [grad, *fast], TOLERANCE[dtype])
    again = triton_backward.backward(*arguments, deterministic=True)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_deterministic_mode_fused(plain_case, outcome, assert_close, poisoned):
    case = replace(plain_case, **SMALL)
    tensors = case.fused_tensors(torch.float32, 4)
    torch.use_deterministic_algorithms(True)
    try:
        found = outcome(fused(case.levels), tensors)
        again = outcome(fused(case.levels), tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    expected = outcome(fused_reference(case.levels), doubled(tensors))
    assert_close(found, expected, 4e-6)


def test_deterministic_sums_depend_on_their_inputs_order_alone(monkeypatch):
    # many samples of one pixel, more than are added at a time
    from detr_kernels.deform_attn import triton_backward, triton_deterministic

    adds = []
    whole = triton_deterministic.sum_corners
    monkeypatch.setattr(triton_backward, "sum_corners", lambda *a: (adds.append(a), whole(*a)))
    monkeypatch.setattr(torch, "zeros", None)  # nothing is accumulated into
    value, weights = torch.randn(1, 1, 1, 4), torch.randn(1, 70, 1, 1, 1)
    locations = torch.full((1, 70, 1, 1, 1, 2), 0.5)
    grad = torch.randn(1, 70, 4)
    grad_value, _, _ = triton_backward.backward(
        grad, value, torch.tensor([[1, 1]]), locations, weights, deterministic=True
    )
    assert len(adds) == 1
    torch.testing.assert_close(grad_value[0, 0], weights[0, :, 0, 0].T @ grad[0])


def test_auto_stays_with_torch_on_a_cpu(plain_case, monkeypatch):
    from detr_kernels.deform_attn import triton_forward

    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(triton_forward, "forward", never)
    value, locations, weights = plain_case.tensors(torch.float32)
    found = deform_attn(value, plain_case.levels, locations, weights)
    plain = deform_attn(value, plain_case.levels, locations, weights, backend="torch")
    torch.testing.assert_close(found, plain)
