"""Students made faster for inference say the same."""

import pytest
import timm
import torch
from torch import nn

from student_train.models import FAMILIES, build_student
from student_train.models.fusing import make_ready
from student_train.models.layers.conv_norm import RepConv
from student_train.presets import all_presets, load_preset

SMALLEST = {
    load_preset(name).model.family: name
    for name, each in all_presets().items()
    if each.use == "tests"
}


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_go_and_outputs_stay(family: str) -> None:
    torch.manual_seed(0)
    student = build_student(load_preset(SMALLEST[family]).model).double().eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for name, buffer in student.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.2 * torch.rand_like(buffer)
    images, mask = torch.rand(2, 3, 64, 64).double(), torch.zeros(2, 64, 64, dtype=torch.bool)
    with torch.no_grad():
        before = student(images, mask).last
        norms = sum(isinstance(each, nn.BatchNorm2d) for each in student.modules())
        make_ready(student, torch.device("cpu"))
        after = student(images, mask).last
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.boxes, before.boxes, rtol=1e-9, atol=1e-9)
    left = sum(isinstance(each, nn.BatchNorm2d) for each in student.modules())
    assert left <= norms
    if family == "d_fine":
        # of the backbone for tests, an EfficientNet, norms are called otherwise and stay
        assert not any(isinstance(each, nn.BatchNorm2d) for each in student.encoder.modules())
        assert all(m.conv2 is None for m in student.modules() if isinstance(m, RepConv))


@pytest.mark.parametrize("backbone", ["hgnetv2_b0", "resnet18", "resnet18d"])
def test_norms_of_backbones_go_too(backbone: str) -> None:
    torch.manual_seed(0)
    body = timm.create_model(backbone, features_only=True, pretrained=False).double().eval()
    with torch.no_grad():
        for name, value in body.state_dict().items():
            if value.is_floating_point() and not name.endswith("var"):
                value += 0.1 * torch.randn_like(value)
        images = torch.rand(1, 3, 64, 64).double()
        before = body(images)
        make_ready(body, torch.device("cpu"))
        after = body(images)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    # the stem of a ResNet-D ends in a sequence whose norm stands outside
    left = sum(isinstance(each, nn.BatchNorm2d) for each in body.modules())
    assert left == (1 if backbone == "resnet18d" else 0)
