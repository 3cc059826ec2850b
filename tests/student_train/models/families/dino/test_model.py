from dataclasses import replace

import pytest
import torch
from torch import nn

from student_train.errors import ConfigError
from student_train.losses import Criterion, LossConfig
from student_train.models import Dino, DinoConfig, build_student

SIZES = [(61, 83), (50, 70)]


def step(student, batch, targets):
    torch.manual_seed(1)
    output = student(*batch, targets)
    criterion = Criterion(LossConfig())
    losses = criterion(output, criterion.supervise(targets))
    losses.total.backward()
    return output, losses


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ({}, 23_438_270),
        ({"backbone": "swin_large_patch4_window12_384"}, 22_029_246),
        ({"strides": (4, 8, 16, 32), "n_levels": 5}, None),
    ],
)
def test_parameter_counts(backbone: dict, head: int | None) -> None:
    with torch.device("meta"):
        student = Dino(DinoConfig(**backbone))
    counts = {True: 0, False: 0}
    for name, parameter in student.named_parameters():
        counts[name.startswith("backbone.")] += parameter.numel()
    if head is not None:
        assert counts[False] == head
    else:
        # the official 5-scale model, whose table of queries has 50 rows in place of 900
        assert sum(counts.values()) - 850 * 256 == 47_038_206


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("counts", [(2, 3), (0, 3), (0, 0)])
def test_every_parameter_gets_a_finite_gradient(tiny, padded, truth, counts, share) -> None:
    student = tiny(share_heads=share).train()
    output, losses = step(student, padded(SIZES), truth(*counts))
    assert losses.total.isfinite()
    assert (output.denoising is None) == (counts == (0, 0))
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_shapes(tiny, padded, truth) -> None:
    output = tiny().train()(*padded(SIZES), truth(2, 3))
    assert len(output.layers) == 3
    for prediction in output.layers:
        assert prediction.logits.shape == (2, 12, 7)
        assert prediction.boxes.shape == (2, 12, 4)
        assert (prediction.boxes >= 0).all()
        assert (prediction.boxes <= 1).all()
    assert output.proposals.logits.shape == (2, 12, 7)
    assert output.proposal_labels == "class"
    assert output.denoising.layers[0].logits.shape == (2, output.denoising.n_slots, 7)
    # below 50, half the count of groups; each has 3 positives and 3 negatives
    assert output.denoising.n_groups == 20
    assert output.denoising.n_slots == 20 * 2 * 3


def test_no_denoising_in_inference(tiny, padded, truth) -> None:
    student = tiny().eval()
    with torch.no_grad():
        with_targets = student(*padded(SIZES), truth(2, 3))
        without = student(*padded(SIZES))
    assert with_targets.denoising is None
    assert torch.equal(with_targets.last.logits, without.last.logits)


def test_denoising_does_not_leak_into_matching(tiny, padded, truth) -> None:
    student = tiny(norm="frozen").train()
    with torch.no_grad():
        with_targets = student(*padded(SIZES), truth(2, 3)).last
        without = student(*padded(SIZES)).last
    torch.testing.assert_close(with_targets.logits, without.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(with_targets.boxes, without.boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (33, 31), (64, 64)])
def test_odd_sizes(tiny, padded, size) -> None:
    with torch.no_grad():
        output = tiny().eval()(*padded([size]))
    assert output.last.logits.isfinite().all()
    assert output.last.boxes.isfinite().all()
    assert 0 < output.last.boxes.shape[1] <= 12


def test_order_of_the_batch_does_not_matter(tiny, padded) -> None:
    student = tiny().eval()
    images, mask = padded([*SIZES, (61, 40)])
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        straight = student(images, mask).last
        turned = student(images[order], mask[order]).last
    torch.testing.assert_close(straight.logits[order], turned.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(straight.boxes[order], turned.boxes, atol=1e-4, rtol=1e-4)


class NoPosition(nn.Module):
    def forward(self, place: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(place[..., :32])


@pytest.mark.parametrize("canvas", [(128, 128), (256, 64), (192, 192)])
def test_padding_changes_nothing_in_the_transformer(tiny, padded, maps, canvas) -> None:
    # a backbone's convolutions tell the border of an image from padding, so it is left out; so is
    # the queries' position, which the official code measures on the padded canvas
    student = tiny().eval()
    student.decoder.query_position = NoPosition()
    outputs = []
    for height, width in ((128, 64), canvas):
        student.backbone, student.neck = nn.Identity(), maps(height, width)
        mask = torch.ones(1, height, width, dtype=torch.bool)
        mask[:, :128, :64] = False
        with torch.no_grad():
            outputs.append(student(torch.zeros(1, 3, height, width), mask))
    plain, roomy = outputs
    for a, b in zip(plain.layers, roomy.layers, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.proposals.logits, roomy.proposals.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.proposals.boxes, roomy.proposals.boxes, atol=1e-5, rtol=1e-5)


def test_look_forward_twice(tiny, padded) -> None:
    student = tiny(share_heads=False).train()
    output = student(*padded(SIZES))
    output.layers[1].boxes.sum().backward()
    grads = [head.layers[-1].bias.grad for head in student.heads.boxes]
    # a layer's box loss trains its own box head and the one before it, and no other
    assert grads[0].abs().sum() > 0
    assert grads[1].abs().sum() > 0
    assert grads[2] is None


def test_references_carry_no_gradient_further_back(tiny, padded) -> None:
    student = tiny(share_heads=False).train()
    student(*padded(SIZES)).layers[2].boxes.sum().backward()
    assert student.heads.boxes[0].layers[-1].bias.grad is None
    assert student.queries.boxes.layers[-1].bias.grad is None


def test_initial_values(tiny_config) -> None:
    student = build_student(tiny_config)
    for head in (*student.heads.classes, student.queries.classes):
        torch.testing.assert_close(head.bias.sigmoid(), torch.full((7,), 0.01))
    for head in (*student.heads.boxes, student.queries.boxes):
        assert not head.layers[-1].weight.any()
        assert not head.layers[-1].bias.any()
    assert torch.equal(student.heads.classes[0].weight, student.queries.classes.weight)
    assert student.level_embedding.std() > 0.5


def test_state_dict_round_trip(tiny, padded) -> None:
    first, second = tiny().eval(), build_student(tiny().config).eval()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        a, b = first(*padded(SIZES)).last, second(*padded(SIZES)).last
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.boxes, b.boxes)


def test_seed_decides_a_step(tiny, padded, truth) -> None:
    totals = [step(tiny().train(), padded(SIZES), truth(2, 3))[1].total.item() for _ in range(2)]
    assert totals[0] == totals[1]


def test_checkpointing_changes_no_gradient(tiny, padded, truth) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = tiny(checkpointing=checkpointing).train()
        step(student, padded(SIZES), truth(2, 3))
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_autocast_keeps_predictions_in_float32(tiny, padded, truth) -> None:
    student = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        output = student(*padded(SIZES), truth(2, 3))
    for prediction in (*output.layers, *output.denoising.layers, output.proposals):
        assert prediction.logits.dtype == torch.float32
        assert prediction.boxes.dtype == torch.float32
        assert prediction.boxes.isfinite().all()


def test_float64(tiny, padded) -> None:
    student = tiny().eval()
    images, mask = padded(SIZES)
    with torch.no_grad():
        single = student(images, mask).last
        double = student.double()(images.double(), mask).last
    assert double.boxes.dtype == torch.float64
    torch.testing.assert_close(double.boxes.float(), single.boxes, atol=1e-4, rtol=1e-4)


def test_bad_settings_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        DinoConfig(n_queries=0, strides=(32, 8), norm="group", dropout=1.5, n_levels=1)
    text = str(caught.value)
    for part in ("n_queries", "strides", "norm", "dropout", "n_levels"):
        assert part in text
    assert caught.value.exit_code == 2


def test_dim_and_heads_must_fit(tiny_config) -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        replace(tiny_config, dim=48)


def test_unknown_configuration() -> None:
    with pytest.raises(ConfigError, match="DinoConfig"):
        build_student(object())  # type: ignore[arg-type]
