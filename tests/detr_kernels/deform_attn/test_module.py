"""The layer: official names and start, reference points and boxes, padding."""

import math

import pytest
import torch

from detr_kernels import ArgumentError, MultiScaleDeformableAttention, deform_attn_reference
from detr_kernels.deform_attn.fused_reference import sampling_locations

LEVELS = ((4, 6), (2, 3))
TOKENS = 30


def layer(**options):
    torch.manual_seed(0)
    return MultiScaleDeformableAttention(16, n_heads=4, n_levels=2, n_points=3, **options)


def perturbed():
    attention = layer()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return attention


def test_official_parameter_names_and_shapes():
    shapes = {name: tuple(p.shape) for name, p in layer().state_dict().items()}
    assert shapes == {
        "sampling_offsets.weight": (48, 16),
        "sampling_offsets.bias": (48,),
        "attention_weights.weight": (24, 16),
        "attention_weights.bias": (24,),
        "value_proj.weight": (16, 16),
        "value_proj.bias": (16,),
        "output_proj.weight": (16, 16),
        "output_proj.bias": (16,),
    }


def test_start_looks_along_the_heads_directions():
    attention = MultiScaleDeformableAttention(256)
    assert attention.sampling_offsets.weight.count_nonzero() == 0
    assert attention.attention_weights.weight.count_nonzero() == 0
    assert attention.value_proj.bias.count_nonzero() == 0
    bias = attention.sampling_offsets.bias.detach().view(8, 4, 4, 2)
    square = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, (x, y) in enumerate(square):
        for point in range(4):
            expected = torch.tensor([x * (point + 1.0), y * (point + 1.0)])
            for level in range(4):
                torch.testing.assert_close(bias[head, level, point], expected, atol=1e-5, rtol=0)


def test_points_and_boxes_sample_where_they_should():
    # at the start the offsets are the bias: head 0 looks right, point k at k + 1
    offsets = layer().sampling_offsets.bias.detach().view(1, 1, 4, 2, 3, 2)
    sizes = torch.tensor(LEVELS)
    # ... pixels of the level away from a point
    at = sampling_locations(torch.full((1, 1, 2, 2), 0.5), offsets, sizes)[0, 0, 0]
    torch.testing.assert_close(at[0, :, 0], 0.5 + torch.tensor([1, 2, 3]) / 6)
    torch.testing.assert_close(at[1, :, 0], 0.5 + torch.tensor([1, 2, 3]) / 3)
    torch.testing.assert_close(at[..., 1], torch.full((2, 3), 0.5), atol=1e-6, rtol=0)
    # ... and the last point sits on a box's right edge, on every level
    box = torch.tensor([0.5, 0.4, 0.2, 0.1]).expand(1, 1, 2, 4)
    at = sampling_locations(box, offsets, sizes)[0, 0, 0]
    torch.testing.assert_close(at[:, 2], torch.tensor([[0.6, 0.4], [0.6, 0.4]]))


@pytest.mark.parametrize("coordinates", [2, 4], ids=["points", "boxes"])
def test_equals_its_steps_one_by_one(coordinates):
    attention = perturbed()
    query, tokens = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16)
    reference = torch.rand(2, 5, 2, coordinates)
    offsets = attention.sampling_offsets(query).view(2, 5, 4, 2, 3, 2)
    locations = sampling_locations(reference, offsets, torch.tensor(LEVELS))
    weights = attention.attention_weights(query).view(2, 5, 4, 6).softmax(-1).view(2, 5, 4, 2, 3)
    value = attention.value_proj(tokens).view(2, TOKENS, 4, 4)
    expected = attention.output_proj(deform_attn_reference(value, LEVELS, locations, weights))
    torch.testing.assert_close(attention(query, reference, tokens, LEVELS), expected)


def test_padding_tokens_count_as_zero():
    attention = perturbed()
    query, tokens = torch.randn(2, 5, 16), torch.randn(2, TOKENS, 16)
    reference = torch.rand(2, 5, 2, 2)
    mask = torch.zeros(2, TOKENS, dtype=torch.bool)
    mask[1, 20:] = True
    changed = tokens.clone()
    changed[mask] = 100.0
    expected = attention(query, reference, tokens, LEVELS, mask)
    assert torch.equal(attention(query, reference, changed, LEVELS, mask), expected)
    assert not torch.equal(attention(query, reference, tokens, LEVELS)[1], expected[1])


def test_every_parameter_gets_a_gradient():
    attention = perturbed()
    output = attention(
        torch.randn(2, 5, 16), torch.rand(2, 5, 2, 4), torch.randn(2, TOKENS, 16), LEVELS
    )
    assert output.shape == (2, 5, 16)
    output.square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_autocast_leaves_the_offsets_exact():
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(64, n_heads=4, n_levels=2, n_points=4)
    with torch.no_grad():
        attention.sampling_offsets.weight.normal_(0, 3 / 8)  # as far as trained heads look
        attention.attention_weights.weight.normal_(0, 1 / 8)
    levels = ((20, 30), (10, 15))
    inputs = torch.randn(1, 50, 64), torch.rand(1, 50, 2, 2), torch.randn(1, 750, 64), levels

    def outcome(inputs, *, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = attention(*inputs)
        grad = torch.arange(output.numel()).view(output.shape) % 7 - 3
        weights = attention.sampling_offsets.weight
        return output, torch.autograd.grad(output, weights, grad.to(output.dtype))[0]

    exact, found = outcome(inputs, autocast=False), outcome(inputs, autocast=True)
    assert found[0].dtype == torch.bfloat16
    # bf16 offsets would leave 2e-2 and 1.5e-1
    for a, b in zip(found, exact, strict=True):
        assert (a - b).norm() < 8e-3 * b.norm()


@pytest.mark.slow
def test_compiles_to_one_graph():
    attention = perturbed()
    inputs = torch.randn(2, 5, 16), torch.rand(2, 5, 2, 2), torch.randn(2, TOKENS, 16), LEVELS
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), attention(*inputs))


def test_number_of_heads_divides_channels():
    with pytest.raises(ArgumentError, match="dim: expected a multiple of n_heads=3, got 16"):
        MultiScaleDeformableAttention(16, n_heads=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": torch.zeros(1, 5, 8)}, r"query: expected .* C=16, got \[1, 5, 8\]"),
        ({"tokens": torch.zeros(TOKENS, 16)}, r"tokens: expected .* C=16, got \[30, 16\]"),
        ({"reference": torch.zeros(1, 5, 2, 3)}, r"reference: .* L=2, got \[1, 5, 2, 3\]"),
        ({"reference": torch.zeros(1, 5, 1, 4)}, r"reference: .* L=2, got \[1, 5, 1, 4\]"),
        (
            {"padding_mask": torch.zeros(1, TOKENS)},
            r"padding_mask: expected bool \[1, 30\].*float32",
        ),
        ({"padding_mask": torch.zeros(1, 9).bool()}, r"padding_mask: .* got torch.bool \[1, 9\]"),
        ({"spatial_shapes": ((4, 6),)}, r"spatial_shapes: expected 2 \(h, w\) pairs"),
    ],
)
def test_refusals(changes, message):
    given = {
        "query": torch.zeros(1, 5, 16),
        "reference": torch.zeros(1, 5, 2, 2),
        "tokens": torch.zeros(1, TOKENS, 16),
        "spatial_shapes": LEVELS,
    }
    with pytest.raises(ArgumentError, match=message):
        layer()(**given | changes)


def test_directions_lie_on_the_square_for_any_number_of_heads():
    attention = MultiScaleDeformableAttention(60, n_heads=6, n_levels=1, n_points=1)
    bias = attention.sampling_offsets.bias.detach().view(6, 2)
    torch.testing.assert_close(bias.abs().amax(-1), torch.ones(6))
    angle = torch.atan2(bias[1, 1], bias[1, 0]).item()
    assert math.isclose(angle, math.pi / 3, rel_tol=1e-5)
