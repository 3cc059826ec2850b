"""The least traffic of a call, for sizes that were counted by hand."""

import pytest
import torch

from detr_kernels.bench.roofline import least_bytes
from detr_kernels.shapes import SHAPES, FusedInputs, Inputs, make_fused_inputs, make_inputs


@pytest.mark.parametrize(
    ("name", "dtype", "forward", "backward"),
    [
        # value, locations, weights, output; MB
        ("enc4", torch.float32, 159, 319),
        ("enc4", torch.bfloat16, 114, 273),
        ("dec4", torch.bfloat16, 27, 122),
        ("enc5", torch.float32, 706, 1413),
    ],
)
def test_dino_on_two_photos(name, dtype, forward, backward):
    shape = SHAPES[name]
    grouping = (shape.batch, shape.n_queries, shape.heads, len(shape.levels), shape.points)
    with torch.device("meta"):
        inputs = Inputs(
            torch.empty(shape.batch, shape.pixels, shape.heads, shape.dim, dtype=dtype),
            shape.levels,
            torch.empty(*grouping, 2),
            torch.empty(grouping),
            torch.empty(shape.batch, shape.n_queries, shape.heads * shape.dim, dtype=dtype),
        )
    assert [round(n / 1e6) for n in least_bytes(inputs)] == [forward, backward]


def test_the_fused_path_reads_its_reference_and_writes_none():
    shape = SHAPES["small"]
    inputs, fused = make_inputs(shape), make_fused_inputs(shape)
    assert isinstance(fused, FusedInputs)
    extra = fused.reference.numel() * 4
    assert [f - i for f, i in zip(least_bytes(fused), least_bytes(inputs), strict=True)] == [
        extra,
        extra,
    ]
