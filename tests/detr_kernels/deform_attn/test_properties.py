"""What holds for any sizes and any samples, on the CPU path."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_kernels import (
    deform_attn,
    deform_attn_fused,
    deform_attn_fused_reference,
    deform_attn_reference,
)
from detr_kernels.shapes import Shape, make_fused_inputs, make_inputs, mapped

quick = settings(max_examples=40, deadline=None, derandomize=True)

sizes = st.integers(1, 6)
shapes = st.builds(
    Shape,
    batch=st.integers(0, 3),
    levels=st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4).map(tuple),
    heads=st.integers(1, 3),
    dim=st.integers(1, 33),
    points=st.integers(1, 5),
    queries=st.one_of(st.none(), st.integers(0, 9)),
)
laws = st.sampled_from(["uniform", "local"])
seeds = st.integers(0, 2**31)


def outcome(run, inputs):
    output = run(*inputs.arguments)
    return [output.detach(), *torch.autograd.grad(output, inputs.leaves, inputs.grad_output)]


def assert_same(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a.double() - b).norm() <= tolerance * b.norm() + 1e-12


@quick
@given(shapes, laws, seeds)
def test_the_operator_equals_its_specification(shape, law, seed):
    inputs = make_inputs(shape, law, dtype=torch.float64, seed=seed)
    assert_same(outcome(deform_attn, inputs), outcome(deform_attn_reference, inputs), 1e-11)


@quick
@given(shapes, laws, seeds)
def test_the_fused_operator_equals_its_specification(shape, law, seed):
    inputs = make_fused_inputs(shape, law, seed=seed)
    expected = outcome(deform_attn_fused_reference, mapped(inputs, torch.Tensor.double))
    found = outcome(deform_attn_fused, inputs)
    # a sample within rounding of a pixel's centre takes its slope from either side
    del found[2], expected[2]
    assert_same(found, expected, 1e-4)


@quick
@given(shapes, seeds)
def test_a_constant_map_gives_back_its_constant_inside(shape, seed):
    inputs = make_inputs(shape, "uniform", dtype=torch.float64, seed=seed)
    # half a pixel from the edge at least: all four corners exist
    margin = 0.5 / torch.tensor([(w, h) for h, w in shape.levels], dtype=torch.float64)[:, None]
    locations = margin + inputs.sampling_locations.detach() * (1 - 2 * margin)
    output = deform_attn(
        torch.full_like(inputs.value, 3.0), shape.levels, locations, inputs.attention_weights
    )
    torch.testing.assert_close(output, torch.full_like(output, 3.0))


@quick
@given(shapes, seeds)
def test_logits_may_be_shifted_and_a_reference_may_move_into_the_offsets(shape, seed):
    inputs = make_fused_inputs(shape, "local", dtype=torch.float64, seed=seed)
    expected = deform_attn_fused(*inputs.arguments)
    shifted = inputs._replace(logits=inputs.logits + 100.0)
    torch.testing.assert_close(deform_attn_fused(*shifted.arguments), expected)
    if shape.coordinates == 2:
        pixels = torch.tensor([(w, h) for h, w in shape.levels], dtype=torch.float64)
        moved = inputs._replace(
            reference=inputs.reference - 1 / pixels, offsets=inputs.offsets + 1.0
        )
        torch.testing.assert_close(deform_attn_fused(*moved.arguments), expected)


@quick
@given(shapes, seeds, st.integers(0, 3))
def test_images_do_not_mix(shape, seed, image):
    inputs = make_inputs(shape, "local", seed=seed)
    if image >= shape.batch:
        return
    alone = [t[image : image + 1] for t in inputs.leaves]
    output = deform_attn(alone[0], shape.levels, *alone[1:])
    together = deform_attn(*inputs.arguments)[image : image + 1]
    torch.testing.assert_close(output, together)
