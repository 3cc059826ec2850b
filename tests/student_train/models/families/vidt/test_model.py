"""ViDT: who sees whom in its backbone, padding, sizes, files, teachers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from student_train.config import OptimConfig
from student_train.errors import CheckpointError, ConfigError
from student_train.losses import Criterion, LossConfig
from student_train.models import Targets, Vidt, VidtConfig, build_student
from student_train.models.backbones.swin import Swin, SwinShape
from student_train.models.backbones.token_swin import TokenSwin
from student_train.models.official import detect_family, export_official, load_official
from student_train.training.optim import make_optimizer, parameter_groups

TINY = VidtConfig(
    backbone="swin_test_patch4_window3_64",
    n_classes=7,
    n_queries=9,
    dim=32,
    n_heads=2,
    decoder_layers=2,
    ffn_dim=32,
    dropout=0.0,
    drop_path=0.0,
    top_k=5,
)
LOSS = LossConfig(class_loss=2, giou_eps=0)
SIZES = [(61, 83), (50, 70)]
UNUSED = ("level_embedding", ".expansion.", "downsample.norm2.", "backbone.norm")


def tiny(**changes: object) -> Vidt:
    """Every parameter moved off its initial value."""
    torch.manual_seed(0)
    student = Vidt(replace(TINY, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return student


@pytest.mark.parametrize(
    ("size", "n_parameters"), [("nano", 15_728_677), ("tiny", 37_962_901), ("small", 60_465_061)]
)
def test_official_sizes(size: str, n_parameters: int) -> None:
    with torch.device("meta"):
        student = build_student(VidtConfig(backbone=f"swin_{size}_patch4_window7_224"))
    assert sum(p.numel() for p in student.parameters()) == n_parameters


def test_the_tokens_predict_and_then_every_layer(padded) -> None:
    output = tiny().eval()(*padded(SIZES))
    assert len(output.layers) == 3
    for prediction in output.layers:
        assert prediction.logits.shape == (2, 9, 7)
        assert prediction.boxes.shape == (2, 9, 4)
    maps, tokens = tiny().eval().backbone(*padded(SIZES))
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 8, 11), (128, 4, 6), (256, 2, 3), (32, 1, 2)]
    assert tokens.shape == (2, 9, 256)


def tokens_after(body: TokenSwin, stage: int, images: Tensor, mask: Tensor) -> Tensor:
    found: list[Tensor] = []
    last = body.layers[stage].get_submodule("blocks")[-1]  # type: ignore[index]
    handle = last.register_forward_hook(lambda _m, _i, out: found.append(out[:, -body.n_tokens :]))
    with torch.no_grad():
        body(images, mask)
    handle.remove()
    return found[0]


def test_tokens_see_patches_in_the_last_stage_alone(padded) -> None:
    body = tiny().eval().backbone
    (first, mask), (second, _) = padded([(64, 96)], seed=0), padded([(64, 96)], seed=1)
    for stage in range(3):
        before = tokens_after(body, stage, first, mask)
        assert torch.equal(before, tokens_after(body, stage, second, mask))
    before = tokens_after(body, 3, first, mask)
    assert (before - tokens_after(body, 3, second, mask)).abs().max() > 1e-3


def test_patches_never_see_tokens(padded) -> None:
    body = tiny().eval().backbone
    batch = padded(SIZES)
    with torch.no_grad():
        maps, tokens = body(*batch)
        body.det_token.add_(1)
        body.det_pos_embed.add_(1)
        others, moved = body(*batch)
    for a, b in zip(maps, others, strict=True):
        assert torch.equal(a, b)
    assert (tokens - moved).abs().max() > 1e-3


def test_its_maps_are_those_of_a_swin(padded) -> None:
    body = tiny().eval().backbone
    shape = SwinShape.parse(TINY.backbone)
    assert shape is not None
    swin = Swin(shape, (1, 2, 3)).eval()
    report = swin.load_state_dict(body.state_dict(), strict=False)
    assert report.missing_keys == []
    for i in (1, 2, 3):
        setattr(swin, f"norm{i}", nn.Identity())
    images, mask = padded(SIZES)
    with torch.no_grad():
        for mine, theirs in zip(body(images, mask)[0], swin(images), strict=False):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_tokens_do_not_see_padding(padded) -> None:
    body = tiny().eval().backbone
    block = body.layers[3].get_submodule("blocks.0")
    size = (4, 5)
    mask = torch.zeros(2, *size, dtype=torch.bool)
    mask[1, 3:], mask[1, :, 2:] = True, True
    x = torch.randn(2, 20 + 9, 256, generator=torch.Generator().manual_seed(0))
    spoilt = x.clone()
    spoilt[:, :20][mask.flatten(1)] += 5
    context = body._context(mask, size, x)
    with torch.no_grad():
        plain = block(x, size, body.det_pos_embed, context)[:, 20:]
        same = block(spoilt, size, body.det_pos_embed, context)[:, 20:]
        seen = block(spoilt, size, body.det_pos_embed, body._context(mask & False, size, x))
    torch.testing.assert_close(plain, same)
    assert (seen[1, 20:] - same[1]).abs().max() > 1e-3


class Canvas(nn.Module):
    """Stands for the backbone: maps on a canvas, and tokens that know nothing of it."""

    def __init__(self, maps: list[Tensor], tokens: Tensor, position: Tensor) -> None:
        super().__init__()
        self.maps, self.tokens, self.det_pos_embed = maps, tokens, position

    def forward(self, *_: object) -> tuple[list[Tensor], Tensor]:
        return self.maps, self.tokens


@pytest.mark.parametrize("canvas", [(128, 128), (256, 64), (192, 192)])
def test_padding_changes_nothing_in_the_decoder(maps, canvas: tuple[int, int]) -> None:
    # a Swin sees padding as black pixels and a group norm averages over it, so both are left out
    student = tiny().eval()
    position = student.backbone.det_pos_embed.detach()
    tokens = torch.randn(1, 9, 256, generator=torch.Generator().manual_seed(1))
    outputs = []
    for height, width in ((128, 64), canvas):
        student.backbone = Canvas(maps(height, width)(None), tokens, position)  # type: ignore[assignment]
        student.neck = nn.Identity()  # type: ignore[assignment]
        mask = torch.ones(1, height, width, dtype=torch.bool)
        mask[:, :128, :64] = False
        with torch.no_grad():
            outputs.append(student(torch.zeros(1, 3, height, width), mask))
    for a, b in zip(*(each.layers for each in outputs), strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-5, rtol=1e-5)


def test_the_rest_of_the_batch_does_not_matter(padded) -> None:
    images, mask = padded([*SIZES, (61, 40)])
    student = tiny().eval()
    with torch.no_grad():
        together = student(images, mask).last
        alone = student(images[1:2], mask[1:2]).last
    torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.boxes[1:2], alone.boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (33, 31), (64, 64)])
def test_odd_sizes(padded, size: tuple[int, int]) -> None:
    with torch.no_grad():
        last = tiny().eval()(*padded([size])).last
    assert last.logits.isfinite().all()
    assert last.boxes.shape == (1, 9, 4)


def test_a_step_moves_every_parameter_that_is_used(padded, truth) -> None:
    student = tiny(drop_path=0.1, dropout=0.1, checkpointing=True).train()
    optimizer = make_optimizer(student, OptimConfig(), torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    targets, criterion = truth(2, 3), Criterion(LOSS)
    criterion(student(*padded(SIZES), targets), criterion.supervise(targets)).total.backward()
    optimizer.step()
    for name, parameter in student.named_parameters():
        unused = any(part in name for part in UNUSED)
        assert parameter.requires_grad != unused, name
        assert torch.equal(parameter, before[name]) == unused, name
        if not unused:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("counts", [(0, 3), (0, 0)])
def test_gradients_without_boxes(padded, truth, counts: tuple[int, int]) -> None:
    student = tiny().train()
    targets, criterion = truth(*counts), Criterion(LOSS)
    criterion(student(*padded(SIZES)), criterion.supervise(targets)).total.backward()
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_checkpointing_changes_nothing(padded, truth) -> None:
    found = []
    for checkpointing in (False, True):
        student = tiny(checkpointing=checkpointing).train()
        targets, criterion = truth(2, 3), Criterion(LOSS)
        criterion(student(*padded(SIZES)), criterion.supervise(targets)).total.backward()
        found.append([p.grad for p in student.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_stochastic_depth_is_off_in_evaluation(padded) -> None:
    student, batch = tiny(drop_path=0.5), padded(SIZES)
    with torch.no_grad():
        quiet = [student.eval()(*batch).last.logits for _ in range(2)]
        loud = [student.train()(*batch).last.logits for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*loud)


def test_teachers_supervise_the_tokens_and_every_layer(padded, truth) -> None:
    student, criterion = tiny().train(), Criterion(LOSS)
    boxes = [Targets(t.labels, t.boxes, 0.4 * t.scores) for t in truth(3, 1)]
    losses = criterion(student(*padded(SIZES)), criterion.supervise(truth(2, 3), {"a": boxes}))
    parts = losses.parts
    for source in ("truth", "teacher:a"):
        for layer in range(3):
            assert parts[f"{source}/class/{layer}"] > 0
            assert parts[f"{source}/box/{layer}"] > 0
    assert len(parts) == 2 * 3 * 3


def test_no_decay_of_norms_biases_and_tokens() -> None:
    student = tiny()
    names = student.no_weight_decay()
    assert {"backbone.det_token", "backbone.det_pos_embed"} <= names
    assert "backbone.layers.0.blocks.0.det_pos_linear.bias" in names
    # as the official code has it
    assert "backbone.layers.0.blocks.0.attn.relative_position_bias_table" not in names
    assert not any(name.startswith(("neck.", "heads.", "decoder.")) for name in names)
    groups = {g["name"] for g in parameter_groups(student, OptimConfig())}
    assert groups == {"head", "backbone", "backbone_no_decay"}


def test_official_round_trip() -> None:
    first, second = tiny(), tiny()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter += 1
    state = export_official(first)
    assert detect_family(state) == "vidt"
    assert torch.equal(
        state["bbox_embed.2.layers.0.weight"],
        state["transformer.decoder.bbox_embed.2.layers.0.weight"],
    )
    assert {"tgt_proj.0.weight", "transformer.level_embed", "class_embed.0.bias"} <= state.keys()
    report = load_official(second, state)
    assert report.complete
    # box heads are stored twice
    assert report.copies == 3 * 6
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def swin_classifier(timm_layout: bool = False) -> dict[str, Tensor]:
    """A classifier of the tiny shape, as microsoft/Swin-Transformer (or timm) stores it."""
    generator = torch.Generator().manual_seed(0)
    shape = SwinShape.parse(TINY.backbone)
    assert shape is not None
    state = {}
    for key, value in Swin(shape, (3,)).state_dict().items():
        if key.startswith("norm3"):
            continue
        layer, _, rest = key.removeprefix("layers.").partition(".")
        if timm_layout and rest.startswith("downsample"):
            key = f"layers.{int(layer) + 1}.{rest}"
        state[key] = torch.randn(value.shape, generator=generator)
    state["norm.weight"] = torch.ones(256)
    state["head.weight"] = torch.ones(1000, 256)
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.long)
    return state


@pytest.mark.parametrize("timm_layout", [False, True])
def test_a_swin_starts_the_backbone(tmp_path, timm_layout: bool) -> None:
    torch.save({"model": swin_classifier(timm_layout)}, tmp_path / "swin.pth")
    body = Vidt(replace(TINY, backbone_weights=str(tmp_path / "swin.pth"))).backbone
    own = body.state_dict()
    for key, value in swin_classifier().items():
        if key in own:
            assert torch.equal(own[key], value), key
    # what a classifier has not keeps its start
    assert body.det_token.std() < 0.03
    assert torch.equal(own["layers.0.downsample.norm2.weight"], torch.ones(32))


def test_weights_that_do_not_fit_are_refused(tmp_path) -> None:
    state = swin_classifier()
    del state["layers.2.blocks.1.attn.qkv.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"layers\.2\.blocks\.1\.attn\.qkv\.bias"):
        Vidt(replace(TINY, backbone_weights=str(tmp_path / "less.pth")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet50"}, "must be a Swin"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"n_points": 0}, "n_points must be at least 1"),
        ({"attention_backend": "cuda"}, "auto, triton or torch"),
        ({"dim": 48, "n_heads": 5}, "n_heads=5"),
    ],
)
def test_settings_that_cannot_be_used(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)


def test_half_precision_comes_close(padded) -> None:
    student, batch = tiny().eval(), padded(SIZES)
    with torch.no_grad():
        exact = student(*batch).last
        with torch.autocast("cpu", torch.bfloat16):
            rough = student(*batch).last
    assert rough.logits.dtype == rough.boxes.dtype == torch.float32
    assert (rough.logits - exact.logits).abs().mean() < 0.05 * exact.logits.abs().mean()
    assert (rough.boxes - exact.boxes).abs().mean() < 0.02
