"""Conditional, DAB and DN-DETR: what they share and where they differ."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from student_train.errors import CheckpointError, ConfigError
from student_train.losses import Criterion, LossConfig
from student_train.models import (
    ConditionalDetrConfig,
    DabDetrConfig,
    DnDetrConfig,
    StudentConfig,
    build_student,
)
from student_train.models.backbones.backbone import Backbone
from student_train.models.layers.conditional_attention import attend
from student_train.models.layers.heads import LayerHeads
from student_train.models.official import detect_family, export_official, load_official
from student_train.models.single_scale import SingleScaleStudent

SIZES = [(61, 83), (50, 70)]
SMALL = {
    "backbone": "test_resnet",
    "n_classes": 7,
    "n_queries": 9,
    "dim": 32,
    "n_heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "ffn_dim": 32,
    "dropout": 0.0,
    "top_k": 5,
}
KINDS: dict[str, StudentConfig] = {
    "conditional": ConditionalDetrConfig(**SMALL),
    "dab": DabDetrConfig(**SMALL),
    "patterns": DabDetrConfig(**SMALL, n_patterns=2),
    "dn": DnDetrConfig(**SMALL),
}
LOSSES = {
    "conditional": LossConfig(class_loss=2, giou_eps=0),
    "dab": LossConfig(),
    "patterns": LossConfig(),
    "dn": LossConfig(denoising_background=0, denoising_counts="own"),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def small(kind: str, **changes: object) -> SingleScaleStudent:
    """Every parameter and statistic moved off its initial value: zeros would hide errors."""
    torch.manual_seed(0)
    student = build_student(replace(KINDS[kind], **changes))
    assert isinstance(student, SingleScaleStudent)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in student.named_buffers():
            if name.endswith(("running_mean", "bias")):
                buffer += 0.1 * torch.randn_like(buffer)
            elif name.endswith(("running_var", "weight")):
                buffer *= 1 + 0.2 * torch.rand_like(buffer)
    return student


def same_predictions(a, b, **tolerance: float) -> None:
    for one, other in zip(a.layers, b.layers, strict=True):
        torch.testing.assert_close(one.logits, other.logits, **tolerance)
        torch.testing.assert_close(one.boxes, other.boxes, **tolerance)


CLOSE = {"atol": 1e-9, "rtol": 1e-9}


@pytest.mark.parametrize(
    ("config", "head"),
    [
        (ConditionalDetrConfig(backbone="resnet101"), 19_963_489),
        (DabDetrConfig(backbone="resnet101"), 20_216_605),
        (DabDetrConfig(n_patterns=3), 20_216_605 + 3 * 256),
        (DnDetrConfig(), 20_240_065),
    ],
)
def test_official_sizes(config: StudentConfig, head: int) -> None:
    with torch.device("meta"):
        student = build_student(config)
    beside = [p for name, p in student.named_parameters() if not name.startswith("backbone.")]
    assert sum(p.numel() for p in beside) == head


@each_kind
@pytest.mark.parametrize("counts", [(2, 3), (0, 0)])
def test_one_step_moves_every_parameter(kind: str, padded, truth, counts) -> None:
    student, targets = small(kind, norm="batch").train(), truth(*counts)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    criterion = Criterion(LOSSES[kind])
    output = student(*padded(SIZES), targets)
    assert (output.denoising is not None) == (kind == "dn" and sum(counts) > 0)
    criterion(output, criterion.supervise(targets)).total.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    if sum(counts) == 0:
        # nothing is to be found: boxes have no loss
        return
    torch.optim.SGD(student.parameters(), lr=1.0).step()
    still = {name for name, p in student.named_parameters() if torch.equal(p, before[name])}
    # contents are zero before the first layer, so what its self-attention does with them is too
    first = "decoder.layers.0.self_attn."
    idle = {f"{first}{part}.weight" for part in ("query_content", "key_content", "value")}
    assert still == (idle if kind in ("conditional", "dab") else set())


@each_kind
def test_frozen_parts_stay(kind: str, padded, truth) -> None:
    student, targets = small(kind).train(), truth(2, 3)
    criterion = Criterion(LOSSES[kind])
    state = {key: value.clone() for key, value in student.state_dict().items()}
    criterion(student(*padded(SIZES), targets), criterion.supervise(targets)).total.backward()
    frozen = [name for name, p in student.named_parameters() if not p.requires_grad]
    assert all(name.startswith("backbone.") for name in frozen)
    for name in frozen:
        assert student.get_parameter(name).grad is None
    after = student.state_dict()
    assert all(torch.equal(after[key], value) for key, value in state.items())


@pytest.mark.parametrize("config", [ConditionalDetrConfig(), DabDetrConfig(), DnDetrConfig()])
def test_stem_and_first_stage_of_a_resnet_are_frozen(config: StudentConfig) -> None:
    with torch.device("meta"):
        student = build_student(config)
    stages: dict[bool, set[str]] = {False: set(), True: set()}
    for name, parameter in student.backbone.body.named_parameters():
        stages[parameter.requires_grad].add(name.split(".")[0])
    assert stages == {False: {"conv1", "layer1"}, True: {"layer2", "layer3", "layer4"}}


@each_kind
def test_output(kind: str, padded, truth) -> None:
    student = small(kind).train()
    n_queries = 18 if kind == "patterns" else 9
    output = student(*padded(SIZES), truth(2, 3))
    assert len(output.layers) == 3
    for prediction in output.layers:
        assert prediction.logits.shape == (2, n_queries, 7)
        assert prediction.boxes.shape == (2, n_queries, 4)
        assert (prediction.boxes >= 0).all()
        assert (prediction.boxes <= 1).all()
    assert output.proposals is None
    if kind == "dn":
        assert output.denoising.n_groups == 5
        assert output.denoising.layers[0].logits.shape == (2, 15, 7)
        assert len(output.denoising.slot_index) == 5 * 5
    student.eval()
    with torch.no_grad():
        assert student(*padded(SIZES), truth(2, 3)).denoising is None


@each_kind
def test_the_rest_of_the_batch_does_not_matter(kind: str, padded) -> None:
    student = small(kind).double().eval()
    images, mask = padded([*SIZES, (61, 40)])
    images = images.double()
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        three, turned = student(images, mask), student(images[order], mask[order])
        alone = student(images[1:2], mask[1:2])
    for a, b, c in zip(three.layers, turned.layers, alone.layers, strict=True):
        for field in ("logits", "boxes"):
            x = getattr(a, field)
            torch.testing.assert_close(x[order], getattr(b, field), **CLOSE)
            torch.testing.assert_close(x[1:2], getattr(c, field), **CLOSE)


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


@each_kind
@pytest.mark.parametrize("size", [(1, 1), (7, 200), (33, 31), (64, 64)])
def test_odd_sizes(kind: str, padded, size: tuple[int, int]) -> None:
    with torch.no_grad():
        last = small(kind).eval()(*padded([size])).last
    assert last.logits.isfinite().all()
    assert last.boxes.isfinite().all()


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


@each_kind
def test_teachers_supervise(kind: str, padded, truth) -> None:
    student = small(kind).train()
    targets, seen = truth(2, 3), truth(4, 1)
    criterion = Criterion(LOSSES[kind])
    torch.manual_seed(0)
    output = student(*padded(SIZES), targets)
    alone = criterion(output, criterion.supervise(targets)).parts
    taught = criterion(output, criterion.supervise(targets, {"a": seen, "b": seen})).parts
    for name, value in alone.items():
        torch.testing.assert_close(taught[name], value)
    layers = {name.rsplit("/")[-1] for name in taught if name.startswith("teacher:a/")}
    assert layers == {"0", "1", "2"}
    torch.testing.assert_close(taught["teacher:a/class/2"], taught["teacher:b/class/2"])


@each_kind
def test_initial_values(kind: str) -> None:
    torch.manual_seed(0)
    student = build_student(KINDS[kind])
    torch.testing.assert_close(student.heads.classes[0].bias.sigmoid(), torch.full((7,), 0.01))
    last = student.heads.boxes[0].layers[-1]
    assert not last.weight.any()
    assert not last.bias.any()
    table = student.queries if kind == "conditional" else student.anchors
    assert table.weight.std() > 0.7
    for part in (student.encoder, student.decoder):
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1:
                bound = (6 / (parameter.shape[0] + parameter.shape[1])) ** 0.5
                assert parameter.abs().max() <= bound, name
                assert parameter.abs().max() > 0.9 * bound, name
            elif "norm" in name or name.endswith("out.bias") or "in_proj" in name:
                assert parameter.unique().numel() == 1, name
            elif "activation" in name:
                assert parameter.item() == 0.25


@each_kind
def test_checkpointing_changes_no_gradient(kind: str, padded, truth) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = small(kind, checkpointing=checkpointing).train()
        torch.manual_seed(1)
        student(*padded(SIZES), truth(2, 3)).last.boxes.sum().backward()
        mine = [p.grad.flatten() for p in student.encoder.parameters()]
        gradients.append(torch.cat(mine))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@each_kind
def test_autocast_keeps_predictions_in_float32(kind: str, padded, truth) -> None:
    student = small(kind).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = student(*padded(SIZES), truth(2, 3))
    noisy = output.denoising.layers if output.denoising else []
    for prediction in (*output.layers, *noisy):
        assert prediction.logits.dtype == torch.float32
        assert prediction.boxes.dtype == torch.float32
        assert prediction.boxes.isfinite().all()


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


FAMILY = {
    "conditional": "conditional_detr",
    "dab": "dab_detr",
    "patterns": "dab_detr",
    "dn": "dn_detr",
}


@each_kind
def test_official_names_round_trip(kind: str) -> None:
    first, second = small(kind), small(kind)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter += 1
    state = export_official(first)
    assert detect_family(state) == FAMILY[kind]
    report = load_official(second, state)
    assert report.complete
    # the box head of a refining decoder is registered twice
    assert report.copies == (0 if kind == "conditional" else 6)
    mine = second.state_dict()
    assert all(torch.equal(mine[key], value) for key, value in first.state_dict().items())


def test_a_checkpoint_of_another_family_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load_official(small("dab"), export_official(small("dn")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConditionalDetrConfig(strides=(8, 16)), "conditional_detr looks at one map"),
        (lambda: DabDetrConfig(temperature=0), "temperature must be above 0"),
        (lambda: DabDetrConfig(n_patterns=-1), "n_patterns must not be negative"),
        (lambda: DnDetrConfig(dn_label_noise=1.5), "dn_label_noise must lie in 0..1"),
        (lambda: DnDetrConfig(dn_groups=-1), "dn_groups and dn_box_noise must not be negative"),
    ],
)
def test_bad_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()
