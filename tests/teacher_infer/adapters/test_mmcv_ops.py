"""mmcv's operators on torchvision, against their definitions and mmcv's own Python."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor

from teacher_infer.adapters import mmcv_ops
from teacher_infer.adapters.mmcv_ops import UnsupportedOperator


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def random_boxes(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    corner = torch.rand(n, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(n, 2, generator=generator) * 30], 1)
    return boxes, torch.rand(n, generator=generator)


def iou(a: list[float], b: list[float], offset: float) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_keeps_what_no_better_box_covers(offset: int, generator: torch.Generator) -> None:
    boxes, scores = random_boxes(60, generator)
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        rivals = [iou(boxes[index].tolist(), boxes[other].tolist(), offset) for other in kept]
        if all(rival <= 0.3 for rival in rivals):
            kept.append(index)
    assert mmcv_ops.nms(boxes, scores, iou_threshold=0.3, offset=offset).tolist() == kept


@pytest.mark.parametrize("method", [0, 1, 2], ids=["plain", "linear", "gaussian"])
def test_softnms_lowers_the_scores_of_overlapping_boxes(
    method: int, generator: torch.Generator
) -> None:
    boxes, scores = random_boxes(30, generator)
    remaining = dict(enumerate(scores.tolist()))
    expected = []
    while remaining:
        best = max(remaining, key=lambda index: remaining[index])
        expected.append((best, remaining.pop(best)))
        for index in list(remaining):
            overlap = iou(boxes[best].tolist(), boxes[index].tolist(), 0)
            if method == 2:
                remaining[index] *= float(torch.exp(torch.tensor(-(overlap**2) / 0.5)))
            elif overlap >= 0.3:
                remaining[index] *= 1 - overlap if method == 1 else 0
            if remaining[index] < 0.05:
                del remaining[index]
    dets = boxes.new_empty(30, 5)
    order = mmcv_ops.softnms(
        boxes, scores, dets, iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=0
    )
    assert order.tolist() == [index for index, _ in expected]
    assert dets[: len(order), 4].tolist() == pytest.approx([score for _, score in expected])
    assert torch.equal(dets[: len(order), :4], boxes[order])


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_and_its_gradient_are_torchvisions(
    ratio: int, aligned: bool, generator: torch.Generator
) -> None:
    features = torch.rand(2, 3, 16, 20, generator=generator, requires_grad=True)
    boxes, _ = random_boxes(5, generator)
    rois = torch.cat([torch.tensor([[0.0], [1], [1], [0], [1]]), boxes], 1)
    expected = torchvision.ops.roi_align(features, rois, (4, 3), 0.25, ratio or -1, aligned)
    settings = {
        "aligned_height": 4,
        "aligned_width": 3,
        "spatial_scale": 0.25,
        "sampling_ratio": ratio,
        "pool_mode": 1,
        "aligned": aligned,
    }
    none = features.new_zeros(0)
    output = torch.zeros_like(expected)
    mmcv_ops.roi_align_forward(features.detach(), rois, output, none, none, **settings)
    assert torch.equal(output, expected)

    weights = torch.rand(expected.shape, generator=generator)
    (wanted,) = torch.autograd.grad(expected, features, weights)
    gradient = torch.zeros_like(features)
    mmcv_ops.roi_align_backward(weights, rois, none, none, gradient, **settings)
    assert torch.allclose(gradient, wanted)


def test_max_pooling_is_refused() -> None:
    none = torch.zeros(0)
    with pytest.raises(UnsupportedOperator, match="pool_mode='max'"):
        mmcv_ops.roi_align_forward(
            none,
            none,
            none,
            none,
            none,
            aligned_height=1,
            aligned_width=1,
            spatial_scale=1,
            sampling_ratio=0,
            pool_mode=0,
            aligned=True,
        )


THROUGH_MMCV = """
import warnings
warnings.simplefilter("ignore")
import torch
from teacher_infer.adapters import mmcv_ops
assert mmcv_ops.install() and mmcv_ops.install()
torch.manual_seed(0)
double = dict(dtype=torch.float64, requires_grad=True)
from mmcv.ops.modulated_deform_conv import modulated_deform_conv2d
x, offset = torch.rand(2, 4, 6, 5, **double), torch.randn(2, 18, 6, 5, **double)
mask, weight = torch.rand(2, 9, 6, 5, **double), torch.randn(6, 2, 3, 3, **double)
bias = torch.randn(6, **double)
inputs = (x, offset, mask, weight, bias)
assert torch.autograd.gradcheck(lambda *a: modulated_deform_conv2d(*a, 1, 1, 1, 2, 1), inputs)
unbiased = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 2, 1)
difference = modulated_deform_conv2d(*inputs, 1, 1, 1, 2, 1) - unbiased
assert torch.allclose(difference, bias[:, None, None].expand_as(difference))

from mmcv.ops.deform_conv import deform_conv2d
ones = torch.ones_like(mask)
plain = deform_conv2d(x, offset, weight, 1, 1, 1, 2, 1)
assert torch.allclose(plain, modulated_deform_conv2d(x, offset, ones, weight, None, 1, 1, 1, 2, 1))

from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch)
shapes, start = torch.tensor([[4, 5], [2, 1]]), torch.tensor([0, 20])
value = torch.rand(2, 22, 2, 4, **double)
places = torch.rand(2, 3, 2, 2, 3, 2, **double)
attention = torch.rand(2, 3, 2, 2, 3, **double)
ours = MultiScaleDeformableAttnFunction.apply(value, shapes, start, places, attention, 64)
theirs = multi_scale_deformable_attn_pytorch(value, shapes, places, attention)
assert torch.allclose(ours, theirs)
upstream = torch.rand_like(ours)
inputs = (value, places, attention)
for a, b in zip(torch.autograd.grad(ours, inputs, upstream),
                torch.autograd.grad(theirs, inputs, upstream)):
    assert torch.allclose(a, b)

from mmcv.ops import carafe
try:
    carafe(torch.rand(1, 1, 4, 4), torch.rand(1, 25, 8, 8), 5, 1, 2)
except mmcv_ops.UnsupportedOperator as error:
    print(error)
"""


@pytest.mark.slow
def test_mmcvs_own_functions_work_on_them_gradients_included_or_name_what_is_missing() -> None:
    """In a fresh process, through mmcv's autograd functions, which fix the order of arguments."""
    done = subprocess.run(
        [sys.executable, "-c", THROUGH_MMCV], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "operator 'carafe_forward'" in done.stdout
    assert "ms_deform_attn_forward" in done.stdout


def test_a_compiled_mmcv_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, mmcv_ops.MODULE_NAME, raising=False)
    monkeypatch.setattr(mmcv_ops, "compiled_mmcv_present", lambda: True)
    assert not mmcv_ops.install()
    assert mmcv_ops.MODULE_NAME not in sys.modules
