"""Parts of single-scale students: attention, anchors, patterns, denoising queries."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.models import (
    ConditionalDetrConfig,
)
from student_train.models.backbones.backbone import Backbone
from student_train.models.layers.conditional_attention import attend
from student_train.models.layers.heads import LayerHeads
from tests.student_train.models.small_single_scale import (
    CLOSE,
    SIZES,
    each_kind,
    same_predictions,
    small,
)


class OneMap(nn.Module):
    """Stands for the backbone: a map that is zero on padding, whatever the images are."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        own = torch.randn(1, 96, 8, 4, generator=torch.Generator().manual_seed(0)).double()
        self.map = F.pad(own, (0, width - 4, 0, height - 8))

    def forward(self, _: object) -> list[Tensor]:
        return [self.map]


@each_kind
@pytest.mark.parametrize("canvas", [(8, 8), (16, 4), (12, 12)])
def test_padding_changes_nothing_behind_the_backbone(kind: str, canvas: tuple[int, int]) -> None:
    # a backbone's convolutions tell the border of an image from padding, so it is left out
    student = small(kind).double().eval()
    outputs = []
    for height, width in ((8, 4), canvas):
        student.backbone = OneMap(height, width)  # type: ignore[assignment]
        mask = torch.ones(1, height * 16, width * 16, dtype=torch.bool)
        mask[:, :128, :64] = False
        with torch.no_grad():
            outputs.append(student(torch.zeros(1, 3, *mask.shape[1:]).double(), mask))
    same_predictions(*outputs, **CLOSE)


def test_a_dilated_stage_holds_the_strided_one() -> None:
    torch.manual_seed(0)
    shape = {"backbone": "resnet18", "norm": "batch"}
    strided = Backbone(ConditionalDetrConfig(**shape, strides=(32,), output_stride=32)).eval()
    dilated = Backbone(ConditionalDetrConfig(**shape)).eval()
    dilated.load_state_dict(strided.state_dict())
    for size in ((64, 96), (61, 83), (33, 50)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            (coarse,), (fine,) = strided(images), dilated(images)
        assert fine.shape[-1] > coarse.shape[-1]
        torch.testing.assert_close(fine[:, :, ::2, ::2], coarse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "trained"), [("conditional", [False, False, True]), ("dab", [False, True, True])]
)
def test_which_box_heads_the_last_layer_trains(kind: str, trained: list[bool], padded) -> None:
    student = small(kind).train()
    student.heads = LayerHeads(32, 7, 3, shared=False)
    student(*padded(SIZES)).last.boxes.sum().backward()
    # anchors are refined, and the last box is measured from the one before, with its gradient
    assert [head.layers[-1].bias.grad is not None for head in student.heads.boxes] == trained


def test_points_are_not_refined(padded) -> None:
    student = small("conditional").eval()
    points: list[Tensor] = []
    for layer in student.decoder.layers:
        layer.cross_attn.query_centre.register_forward_pre_hook(
            lambda _, inputs: points.append(inputs[0])
        )
    for parameter in student.decoder.scale.layers[-1].parameters():
        nn.init.constant_(parameter, float(parameter.dim() == 1))
    with torch.no_grad():
        student(*padded(SIZES))
    # the transformation is now 1 in every layer
    assert len(points) == 3
    assert torch.equal(points[0], points[1])
    assert torch.equal(points[0], points[2])


def test_patterns_share_anchors(padded) -> None:
    student = small("patterns").eval()
    with torch.no_grad():
        student.patterns.weight[1] = student.patterns.weight[0]
        last = student(*padded(SIZES)).last
    torch.testing.assert_close(last.boxes[:, :9], last.boxes[:, 9:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last.logits[:, :9], last.logits[:, 9:], atol=1e-4, rtol=1e-4)


def test_denoising_does_not_leak_into_matching(padded, truth) -> None:
    student = small("dn").double().train()
    images, mask = padded(SIZES)
    with torch.no_grad():
        noisy, plain = (student(images.double(), mask, each) for each in (truth(2, 3), None))
    same_predictions(noisy, plain, **CLOSE)


def test_denoising_queries_see_matching_ones_and_their_own_group(padded, truth) -> None:
    student = small("dn").double().train()
    images, mask = padded(SIZES)

    def run(change: Callable[[Tensor], object]) -> Tensor:
        with torch.no_grad():
            torch.manual_seed(0)
            saved = student.anchors.weight.clone()
            change(student.anchors.weight)
            output = student(images.double(), mask, truth(2, 3))
            student.anchors.weight.copy_(saved)
        return output.denoising.layers[-1].boxes

    same, other = run(lambda _: None), run(lambda anchors: anchors.add_(1))
    assert torch.equal(same, run(lambda _: None))
    assert not torch.allclose(same, other)


def test_the_indicator_marks_denoising_queries(truth) -> None:
    student = small("dn")
    noisy = student.denoising(truth(2, 3), 9, torch.float32)
    marks = noisy.content[..., -1]
    used = torch.zeros_like(marks, dtype=torch.bool)
    used[noisy.image_index, noisy.slot_index] = True
    assert torch.equal(marks, used.float())
    unknown = student.denoising.unknown()
    assert unknown[-1] == 0
    assert torch.equal(unknown[:-1], student.denoising.label_embedding.weight[7])


def test_dropout_reaches_every_attention(padded) -> None:
    student = small("conditional", dropout=0.5).train()
    attentions = [layer.self_attn for layer in student.encoder.layers]
    attentions += [layer.self_attn for layer in student.decoder.layers]
    attentions += [layer.cross_attn for layer in student.decoder.layers]
    assert [each.dropout for each in attentions] == [0.5] * 8
    batch = padded(SIZES)
    with torch.no_grad():
        first, second = student(*batch), student(*batch)
        assert not torch.allclose(first.last.logits, second.last.logits)
        student.eval()
        assert torch.equal(student(*batch).last.logits, student(*batch).last.logits)


def test_attention_by_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    # keys are twice as wide as values
    query, key = (torch.randn(2, n, 3, 8, generator=generator) for n in (5, 7))
    value = torch.randn(2, 7, 3, 4, generator=generator)
    seen = torch.rand(2, 1, 1, 7, generator=generator) > 0.3
    seen[..., 0] = True
    scores = torch.einsum("bqhe,bshe->bhqs", query, key) / 8**0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    want = torch.einsum("bhqs,bshv->bqhv", weights, value).flatten(2)
    torch.testing.assert_close(attend(query, key, value, seen), want, atol=1e-6, rtol=1e-6)
