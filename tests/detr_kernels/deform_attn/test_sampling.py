"""Levels that share tokens, levels with points of their own, samples of the nearest pixel."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detr_kernels import (
    ArgumentError,
    MultiScaleDeformableAttention,
    deform_attn,
    deform_attn_fused,
    sample_nearest,
)

LEVELS = ((4, 3), (2, 5), (2, 2))
POINTS = (3, 6, 3)
DIM, HEADS = 12, 3


def moved(layer: MultiScaleDeformableAttention) -> MultiScaleDeformableAttention:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.double()


def inputs(coordinates: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    query = torch.randn(2, 7, DIM, dtype=torch.float64)
    reference = torch.rand(2, 7, len(LEVELS), coordinates, dtype=torch.float64)
    tokens = torch.randn(2, 26, DIM, dtype=torch.float64)
    return tuple(each.requires_grad_() for each in (query, reference, tokens))


def by_levels(layer: MultiScaleDeformableAttention, query: Tensor, reference: Tensor, x: Tensor):
    """Each level on its own, with its own points: what the layer's samples mean."""
    value = layer.value_proj(x).unflatten(-1, (HEADS, -1))
    offsets = layer.sampling_offsets(query).unflatten(-1, (HEADS, sum(POINTS), 2)).split(POINTS, 3)
    weights = layer.attention_weights(query).unflatten(-1, (HEADS, -1)).softmax(-1).split(POINTS, 3)
    total, start = 0, 0
    for level, (h, w) in enumerate(LEVELS):
        image = value[:, start : start + h * w].permute(0, 2, 3, 1).unflatten(3, (h, w))
        start += h * w
        mine = reference[:, :, None, level, None]
        if mine.shape[-1] == 2:
            at = mine + offsets[level] / torch.tensor([w, h])
        else:
            at = mine[..., :2] + offsets[level] * mine[..., 2:] * 0.5 / POINTS[level]
        grid = (2 * at - 1).transpose(1, 2).flatten(0, 1)
        found = F.grid_sample(image.flatten(0, 1), grid, align_corners=False)
        found = found.unflatten(0, (-1, HEADS))  # [B, H, D, Q, P]
        total = total + (found * weights[level].transpose(1, 2)[:, :, None]).sum(-1)
    return layer.output_proj(total.permute(0, 3, 1, 2).flatten(2))


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("projections", [True, False])
def test_unequal_points_are_levels_on_their_own(coordinates: int, projections: bool):
    layer = moved(MultiScaleDeformableAttention(DIM, HEADS, 3, POINTS, projections=projections))
    given = inputs(coordinates)
    found = layer(*given[:2], given[2], LEVELS)
    expected = by_levels(layer, *given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = [*given, *layer.parameters()]
    toward = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves, toward),
        torch.autograd.grad(expected, leaves, toward),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_unequal_points_with_sizes_in_a_tensor():
    layer = moved(MultiScaleDeformableAttention(DIM, HEADS, 3, POINTS))
    given = inputs(4)
    sizes = torch.tensor(LEVELS)
    assert torch.equal(layer(*given, sizes), layer(*given, LEVELS))


def test_the_start_counts_every_levels_points():
    layer = MultiScaleDeformableAttention(DIM, HEADS, 3, POINTS)
    bias = layer.sampling_offsets.bias.view(HEADS, sum(POINTS), 2)
    # head 0 looks along x
    assert bias[0, :, 0].tolist() == [1, 2, 3, 1, 2, 3, 4, 5, 6, 1, 2, 3]


def test_a_map_in_two_levels_is_no_copy():
    # 6 points as twice 3 of the same tokens
    layer = MultiScaleDeformableAttention(DIM, HEADS, 3, POINTS)
    _, levels, offsets, _, reference = layer.inputs(*(x.float() for x in inputs(4)), LEVELS)
    assert [tuple(row) for row in levels] == [(4, 3, 0), (2, 5, 12), (2, 5, 12), (2, 2, 22)]
    assert offsets.shape[3:] == (4, 3, 2)
    assert reference.shape[2] == 4


@pytest.mark.parametrize("operator", ["plain", "fused"])
def test_shared_tokens_equal_copied_ones(operator: str):
    shared = ((4, 3, 0), (3, 4, 0), (2, 5, 7))
    torch.manual_seed(2)
    value = torch.randn(2, 17, HEADS, 4, dtype=torch.float64, requires_grad=True)
    copied = torch.cat([value[:, s : s + h * w] for h, w, s in shared], 1)
    pairs = [row[:2] for row in shared]
    places = torch.rand(2, 5, HEADS, 3, 2, 2, dtype=torch.float64)
    scores = torch.randn(2, 5, HEADS, 3, 2, dtype=torch.float64)
    if operator == "plain":
        found, expected = (
            deform_attn(v, rows, places, scores) for v, rows in ((value, shared), (copied, pairs))
        )
    else:
        reference = torch.rand(2, 5, 3, 4, dtype=torch.float64)
        found, expected = (
            deform_attn_fused(v, rows, 4 * places - 2, scores, reference)
            for v, rows in ((value, shared), (copied, pairs))
        )
    torch.testing.assert_close(found, expected)
    toward = torch.randn_like(found)
    (mine,), (theirs,) = (torch.autograd.grad(x, [value], toward) for x in (found, expected))
    torch.testing.assert_close(mine, theirs)


def test_nearest_reads_the_pixel_a_sample_falls_in():
    h, w = 3, 3
    value = torch.arange(9.0).view(1, 9, 1, 1)
    # x and y: -9 lies outside; .5 falls into the middle pixel's right neighbour half
    places = torch.tensor([[-9.0, 0.0], [0.34, 0.34], [0.5, 0.99], [2.0, 2.0]])
    locations = places.view(1, 4, 1, 1, 1, 2)
    found = sample_nearest(value, ((h, w),), locations, torch.ones(1, 4, 1, 1, 1))
    # trunc(x * 3 + .5): 0, 1, 2 (1.5 + .5), bounded by 2
    assert found.flatten().tolist() == [0.0, 4.0, 8.0, 8.0]


def test_nearest_bounds_columns_by_the_height_as_the_official_code():
    value = torch.arange(10.0).view(1, 10, 1, 1)
    locations = torch.tensor([0.95, 0.1]).view(1, 1, 1, 1, 1, 2)
    found = sample_nearest(value, ((2, 5),), locations, torch.ones(1, 1, 1, 1, 1))
    # column 5 would be the last one, 4; the height of 2 makes it 1
    assert found.item() == 1.0


def test_nearest_freezes_the_offsets_and_trains_the_rest():
    layer = MultiScaleDeformableAttention(DIM, HEADS, 3, 2, sampling="nearest")
    query, reference, tokens = (each.float() for each in inputs(4))
    layer(query, reference, tokens, LEVELS).sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad is None) == name.startswith("sampling_offsets"), name


@pytest.mark.parametrize("n_points", [0, (3, 6), (3, 0, 3)])
def test_points_are_refused(n_points):
    with pytest.raises(ArgumentError, match="n_points: expected a number from 1, or one for each"):
        MultiScaleDeformableAttention(DIM, HEADS, 3, n_points)


def test_an_unknown_sampling_is_refused():
    with pytest.raises(ArgumentError, match="sampling: expected bilinear or nearest"):
        MultiScaleDeformableAttention(DIM, HEADS, 3, 4, sampling="cubic")
