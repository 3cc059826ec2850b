"""Conditional, DAB and DN-DETR: what they share and where they differ."""

import re
from collections.abc import Callable

import pytest
import torch

from student_train.errors import CheckpointError, ConfigError
from student_train.losses import Criterion
from student_train.models import (
    ConditionalDetrConfig,
    DabDetrConfig,
    DnDetrConfig,
    StudentConfig,
    build_student,
)
from student_train.models.official import detect_family, export_official, load_official
from tests.student_train.models.small_single_scale import (
    CLOSE,
    KINDS,
    LOSSES,
    SIZES,
    each_kind,
    small,
)


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


@each_kind
@pytest.mark.parametrize("size", [(1, 1), (7, 200), (33, 31), (64, 64)])
def test_odd_sizes(kind: str, padded, size: tuple[int, int]) -> None:
    with torch.no_grad():
        last = small(kind).eval()(*padded([size])).last
    assert last.logits.isfinite().all()
    assert last.boxes.isfinite().all()


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
