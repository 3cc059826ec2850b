"""The sizes and inputs that benchmarks are about."""

import pytest
import torch

from detr_kernels.deform_attn.fused_reference import sampling_locations
from detr_kernels.shapes import (
    LAWS,
    LOCAL_SPREAD_PX,
    SHAPES,
    Shape,
    make_fused_inputs,
    make_inputs,
)

TINY = Shape(2, ((4, 6), (2, 3)), heads=2, dim=4, points=2)


def test_the_sizes_of_dino():
    assert SHAPES["enc4"].pixels == 22223
    assert SHAPES["enc5"].pixels == 89023
    assert round(SHAPES["enc4"].samples / 1e6, 2) == 5.69
    assert SHAPES["dec4"].n_queries == 1100


def test_inputs_fit_the_operator_and_repeat():
    for law in LAWS:
        a, b = (make_inputs(TINY, law, dtype=torch.bfloat16, seed=3) for _ in range(2))
        assert a.value.shape == (2, 30, 2, 4)
        assert a.sampling_locations.shape == (2, 30, 2, 2, 2, 2)
        assert (a.value.dtype, a.sampling_locations.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(a.sampling_locations, b.sampling_locations)
        torch.testing.assert_close(a.attention_weights.sum((-1, -2)), torch.ones(2, 30, 2))
        assert all(leaf.is_leaf and leaf.requires_grad for leaf in a.leaves)


def test_fused_inputs_have_the_layers_dtypes_and_repeat():
    a, b = (make_fused_inputs(TINY, "local", dtype=torch.bfloat16, seed=3) for _ in range(2))
    dtypes = [t.dtype for t in (a.value, a.offsets, a.logits, a.reference)]
    assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16, torch.float32]
    assert torch.equal(a.offsets, b.offsets)
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in a.leaves)
    assert not a.reference.requires_grad


@pytest.mark.parametrize("queries", [None, 50], ids=["encoder", "decoder"])
def test_fused_inputs_look_where_the_unfused_do(queries):
    shape = Shape(1, ((40, 60), (20, 30)), queries=queries)
    inputs = make_fused_inputs(shape, "local")
    assert inputs.reference.shape[-1] == (2 if queries is None else 4)
    sizes = torch.tensor(shape.levels)
    locations = sampling_locations(inputs.reference, inputs.offsets, sizes).detach()
    away = locations - inputs.reference[:, :, None, :, None, :2]
    away_px = away * sizes.flip(-1)[:, None]
    assert abs(away_px.std().item() - LOCAL_SPREAD_PX) < 0.1
    uniform = make_fused_inputs(shape, "uniform")
    locations = sampling_locations(uniform.reference, uniform.offsets, sizes)
    assert locations.min() > -1e-3
    assert locations.max() < 1 + 1e-3


def test_local_locations_lie_a_few_pixels_from_the_query():
    shape = Shape(1, ((40, 60), (20, 30)))
    locations = make_inputs(shape, "local").sampling_locations.detach()
    # query 61 is the second pixel of the second row of the finest level
    centre = torch.tensor([1.5 / 60, 1.5 / 40])
    away_px = (locations[0, 61, :, 0] - centre) * torch.tensor([60.0, 40.0])
    assert away_px.abs().max() < 5 * LOCAL_SPREAD_PX
    assert away_px.std() > LOCAL_SPREAD_PX / 2
