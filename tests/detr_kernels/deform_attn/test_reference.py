"""The specification itself, against loops that anyone can check by eye."""

import math

import pytest
import torch

from detr_kernels import deform_attn, deform_attn_reference


def loops(value, levels, locations, weights):
    """Equation 3 of arXiv 2010.04159, one number at a time."""
    batch, _, heads, dim = value.shape
    queries, _, _, points, _ = locations.shape[1:]
    output = torch.zeros(batch, queries, heads, dim, dtype=torch.float64)

    def pixel(b, start, h, w, y, x, head):
        inside = 0 <= y < h and 0 <= x < w
        return value[b, start + y * w + x, head] if inside else torch.zeros(dim)

    for b in range(batch):
        for q in range(queries):
            for head in range(heads):
                start = 0
                for level, (h, w) in enumerate(levels):
                    for point in range(points):
                        x, y = (locations[b, q, head, level, point]).tolist()
                        x, y = x * w - 0.5, y * h - 0.5
                        x0, y0 = math.floor(x), math.floor(y)
                        sample = torch.zeros(dim, dtype=torch.float64)
                        for yi, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
                            for xi, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                                sample += wy * wx * pixel(b, start, h, w, yi, xi, head)
                        output[b, q, head] += weights[b, q, head, level, point] * sample
                    start += h * w
    return output.flatten(2)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_equals_loops(case, backend):
    value, locations, weights = (t.detach() for t in case.tensors(torch.float64))
    if backend == "reference":
        found = deform_attn_reference(value, case.levels, locations, weights)
    else:
        found = deform_attn(value, case.levels, locations, weights, backend="torch")
    expected = loops(value, case.levels, locations, weights)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("run", [deform_attn_reference, deform_attn])
def test_edges_of_the_map(run):
    # a map of 4 pixels worth 1, 2, 3, 4: its outer edge reads half of the last pixel, a pixel's
    # centre the pixel, the border between two pixels their mean
    value = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    x = torch.tensor([-0.125, 0.0, 0.125, 0.25, 0.375, 0.875, 1.0, 1.125], dtype=torch.float64)
    locations = torch.stack([x, torch.full_like(x, 0.5)], -1).view(1, 8, 1, 1, 1, 2)
    weights = torch.ones(1, 8, 1, 1, 1, dtype=torch.float64)
    found = run(value, [(1, 4)], locations, weights).flatten().tolist()
    assert found == [0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 2.0, 0.0]


def test_levels_follow_each_other():
    value = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    centre = torch.full((1, 1, 1, 2, 1, 2), 0.5)
    for weights, expected in (([1.0, 0.0], 1.0), ([0.0, 1.0], 2.5)):
        w = torch.tensor(weights).view(1, 1, 1, 2, 1)
        assert deform_attn_reference(value, [(1, 1), (1, 2)], centre, w).item() == expected
