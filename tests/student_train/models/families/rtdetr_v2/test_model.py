"""What RT-DETRv2 promises whatever its numbers are."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from box_store.errors import UsageError
from student_train.errors import ConfigError
from student_train.losses import Criterion, LossConfig
from student_train.models import RtDetrV2, RtDetrV2Config
from student_train.models.layers.encoder import flatten_maps
from student_train.models.layers.position import sine_grid

LOSS = LossConfig(classification="vfl", giou_eps=0)
TINY = RtDetrV2Config(
    backbone="test_efficientnet",
    n_classes=7,
    n_queries=12,
    dim=32,
    encoder_dim=32,
    encoder_ffn_dim=32,
    n_heads=2,
    decoder_layers=3,
    ffn_dim=32,
    expansion=0.5,
    depth=1 / 3,
    dn_number=10,
    top_k=10,
    attention_backend="torch",
)


def tiny(**changes: object) -> RtDetrV2:
    """Every parameter moved off its initial value: zeros would hide errors."""
    torch.manual_seed(0)
    student = RtDetrV2(replace(TINY, **changes))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return student


def step(student, batch, targets):
    torch.manual_seed(1)
    output = student(*batch, targets)
    criterion = Criterion(LOSS)
    losses = criterion(output, criterion.supervise(targets))
    losses.total.backward()
    return output, losses


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"backbone": "presnet18", "expansion": 0.5, "decoder_layers": 3}, 20_184_464),
        ({"backbone": "presnet34", "expansion": 0.5, "decoder_layers": 4}, 31_441_668),
        # batch norms that are trained count, as they do not in the frozen ones of training
        ({"expansion": 0.5}, 36_647_020),
        ({}, 42_944_620),
        ({"norm": "frozen"}, 42_891_372),
        ({"backbone": "resnet101d", "encoder_dim": 384, "encoder_ffn_dim": 2048}, 76_661_740),
    ],
)
def test_parameter_counts(changes: dict, count: int) -> None:
    with torch.device("meta"):
        student = RtDetrV2(RtDetrV2Config(**changes))
    assert sum(p.numel() for p in student.parameters()) == count


@pytest.mark.parametrize("counts", [(2, 3), (0, 3), (0, 0)])
def test_every_parameter_gets_a_finite_gradient(padded, truth, counts) -> None:
    student = tiny().train()
    output, losses = step(student, padded([(64, 96), (50, 70)]), truth(*counts))
    assert losses.total.isfinite()
    # a batch without boxes has no denoising queries at all
    assert (output.denoising is None) == (counts == (0, 0))
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_label_of_empty_slots_gets_no_gradient(padded, truth) -> None:
    student = tiny().train()
    step(student, padded([(64, 64)] * 2), truth(1, 3))
    gradient = student.denoising.label_embedding.weight.grad
    assert gradient is not None
    assert gradient[-1].count_nonzero() == 0
    assert gradient[:-1].count_nonzero() > 0


def test_empty_slots_are_seen_and_hold_the_last_label(padded, truth) -> None:
    student = tiny().train()
    targets = truth(1, 3)
    noisy = student.denoising(targets, 12, torch.float32)
    assert noisy is not None
    # three groups of positives and negatives; image 0 fills one slot of three
    empty = noisy.content[0, 1]
    assert torch.equal(empty, student.denoising.label_embedding.weight[7])
    assert noisy.boxes[0, 1].max() < 1e-4
    assert not noisy.blocked[0, 1]
    assert noisy.n_groups == 3


def test_evaluation_uses_the_layers_it_is_told(padded) -> None:
    batch = padded([(64, 64)])
    whole, part = tiny().eval(), tiny(eval_layers=2).eval()
    with torch.no_grad():
        all_layers, two = whole(*batch).layers, part(*batch).layers
    assert (len(all_layers), len(two)) == (3, 2)
    assert torch.equal(two[-1].boxes, all_layers[1].boxes)
    assert len(part.train()(*batch).layers) == 3


def test_evaluation_does_not_depend_on_the_batch() -> None:
    student = tiny().eval().double()
    images = torch.rand(3, 3, 96, 64, dtype=torch.float64)
    mask = torch.zeros(3, 96, 64, dtype=torch.bool)
    with torch.no_grad():
        together, alone = student(images, mask).last, student(images[1:2], mask[1:2]).last
    torch.testing.assert_close(together.logits[1:2], alone.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.boxes[1:2], alone.boxes, rtol=1e-9, atol=1e-9)


def test_padding_is_not_looked_at_by_attention_and_boxes_leave_it_out() -> None:
    # maps that are zero in the padding, whatever the canvas: convolutions see no difference then
    student = tiny().eval().double()
    maps = [torch.randn(1, 32, 8 // s, 8 // s, dtype=torch.float64) for s in (1, 2, 4)]

    def tokens(canvas: int):
        sizes = (canvas, canvas // 2, canvas // 4)
        wide = [F.pad(x, (0, w - x.shape[-1])) for x, w in zip(maps, sizes, strict=True)]
        mask = torch.ones(1, 64, canvas * 8, dtype=torch.bool)
        mask[:, :, :64] = False
        student.encode = lambda *_: flatten_maps(wide, mask)  # type: ignore[method-assign]
        with torch.no_grad():
            return student(torch.zeros(1), mask).last

    plain, padded = tokens(8), tokens(16)
    order = [x.boxes[0, :, 0].sort().indices for x in (plain, padded)]
    torch.testing.assert_close(padded.boxes[0, order[1]], plain.boxes[0, order[0]])


def test_attention_counts_positions_row_by_row() -> None:
    place = sine_grid(3, 5, 8, torch.float64, torch.device("cpu")).view(3, 5, 8)
    for row in range(3):
        for column in range(5):
            angles = [n * f for n in (row, column) for f in (1.0, 0.01)]
            y0, y1, x0, x1 = (torch.tensor(a, dtype=torch.float64) for a in angles)
            wanted = [
                y0.sin(),
                y1.sin(),
                y0.cos(),
                y1.cos(),
                x0.sin(),
                x1.sin(),
                x0.cos(),
                x1.cos(),
            ]
            torch.testing.assert_close(place[row, column], torch.stack(wanted))


@pytest.mark.parametrize("size", [(72, 64), (64, 72), (96, 100)])
def test_other_sizes_are_refused_in_a_sentence(size: tuple[int, int]) -> None:
    images, mask = torch.rand(1, 3, *size), torch.zeros(1, *size, dtype=torch.bool)
    with pytest.raises(
        UsageError, match=rf"multiples of the coarsest stride.*{size[0]} x {size[1]}"
    ):
        tiny().eval()(images, mask)


def test_the_official_recipe_freezes_stem_and_statistics_of_the_backbone_alone() -> None:
    changes = {"backbone": "resnet50d", "norm": "frozen", "frozen_stages": 0, "frozen_stem": True}
    with torch.device("meta"):
        student = RtDetrV2(replace(TINY, **changes))
    still = {n for n, p in student.named_parameters() if not p.requires_grad}
    assert still == {f"backbone.body.conv1.{i}.weight" for i in (0, 3, 6)}
    trained = [n for n, m in student.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert trained
    assert not any(name.startswith("backbone.") for name in trained)


def test_the_nearest_pixel_freezes_where_to_look() -> None:
    student = tiny(sampling="nearest")
    still = {n for n, p in student.named_parameters() if not p.requires_grad}
    assert still == {
        f"decoder.layers.{i}.cross_attn.sampling_offsets.{kind}"
        for i in range(3)
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_dim": 30}, "encoder_dim must be a multiple"),
        ({"strides": (8, 32)}, "strides must double"),
        ({"activation": "gelu"}, "activation must be relu or silu"),
        ({"eval_layers": 4}, "eval_layers must lie in 1..decoder_layers=3"),
        ({"sampling": "cubic"}, "sampling must be bilinear or nearest"),
        ({"dn_label_noise": 3.0}, "dn_label_noise must lie in 0..2"),
        ({"depth": -1.0}, "depth not negative"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)
