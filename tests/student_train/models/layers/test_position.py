import math

import pytest
import torch

from student_train.models.layers.position import (
    inverse_sigmoid,
    move_reference,
    sine_boxes,
    sine_coordinates,
    sine_map,
    valid_ratio,
)


def mask_of(height: int, width: int, valid: tuple[int, int]) -> torch.Tensor:
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[0, : valid[0], : valid[1]] = False
    return mask


def test_sine_map_formula_at_one_cell() -> None:
    place = sine_map(mask_of(4, 5, (4, 5)), 8, 20.0, torch.float64)[0, 2, 1]
    y, x = 3 / 4 * 2 * math.pi, 2 / 5 * 2 * math.pi
    want = [f(v / 20 ** (i / 2)) for v in (y, x) for i in (0, 1) for f in (math.sin, math.cos)]
    assert place.tolist() == pytest.approx(want, abs=1e-5)


def test_sine_map_does_not_see_padding() -> None:
    alone = sine_map(mask_of(3, 4, (3, 4)), 16, 20.0, torch.float32)
    within = sine_map(mask_of(6, 9, (3, 4)), 16, 20.0, torch.float32)
    assert torch.equal(alone, within[:, :3, :4])
    assert within.isfinite().all()


def test_sine_map_of_cell_centres() -> None:
    # the first of four cells ends at 1/4 and has its centre at 1/8
    ends = sine_map(mask_of(4, 4, (4, 4)), 8, 20.0, torch.float64)[0, 0, 0]
    centres = sine_map(mask_of(4, 4, (4, 4)), 8, 20.0, torch.float64, offset=0.5)[0, 0, 0]
    assert ends[0].item() == pytest.approx(math.sin(2 * math.pi / 4), abs=1e-5)
    assert centres[0].item() == pytest.approx(math.sin(2 * math.pi / 8), abs=1e-5)


def test_sine_coordinates_keep_their_order() -> None:
    box = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    cx, cy, w, h = sine_coordinates(box, 8).view(4, 4)
    assert cx[0].item() == pytest.approx(math.sin(0.2 * math.pi))
    assert h[1].item() == pytest.approx(math.cos(0.8 * math.pi))
    assert torch.equal(sine_boxes(box, 8)[0], torch.cat((cy, cx, w, h)))


def test_references_move_in_logit_space() -> None:
    change = torch.tensor([[[0.5, -0.5, 0.25, 0.0]]])
    box = move_reference(change, torch.full((1, 1, 4), 0.5), 1e-5)
    torch.testing.assert_close(box, change.sigmoid())
    # a point has no size: it is the change itself
    point = move_reference(change, torch.tensor([[[0.2, 0.5]]]), 1e-5)
    torch.testing.assert_close(point[0, 0, 1:], change.sigmoid()[0, 0, 1:])
    torch.testing.assert_close(point[0, 0, 0].logit(), torch.tensor(0.2).logit() + 0.5)
    # the smallest logit that a reference at the border has
    border = move_reference(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), 1e-3)
    torch.testing.assert_close(border, torch.full((1, 1, 4), 1 / 1001))


def test_sine_boxes_order_is_y_x_w_h() -> None:
    moved = {"cx": 0, "cy": 1, "w": 2, "h": 3}
    base = sine_boxes(torch.full((4,), 0.3), 8)
    changed = {}
    for name, axis in moved.items():
        box = torch.full((4,), 0.3)
        box[axis] = 0.4
        changed[name] = (sine_boxes(box, 8) != base).view(4, 4).any(1).nonzero().item()
    assert changed == {"cy": 0, "cx": 1, "w": 2, "h": 3}


def test_inverse_sigmoid_inverts_and_clamps() -> None:
    x = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(x).sigmoid(), x)
    edge = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0, math.inf]))
    assert edge.tolist() == pytest.approx([-6.9078, -6.9078, 6.9078, 6.9078, 6.9078], abs=1e-4)


def test_valid_ratio_is_x_then_y() -> None:
    assert valid_ratio(mask_of(4, 10, (3, 5)), torch.float32).tolist() == [[0.5, 0.75]]
