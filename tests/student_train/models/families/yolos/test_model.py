"""YOLOS: against transformers', its sizes, its settings, its teachers."""

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student_train.config import OptimConfig
from student_train.errors import CheckpointError, ConfigError
from student_train.losses import Criterion, LossConfig, MatchCost
from student_train.models import Targets, Yolos, YolosConfig, build_student, top_k
from student_train.models.official import detect_family, export_official, load_official
from student_train.training.optim import make_optimizer, parameter_groups

TINY = YolosConfig(
    backbone="deit_test_patch16_224",
    n_classes=7,
    n_queries=9,
    top_k=5,
    table_size=(48, 80),
    mid_table_size=(80, 48),
)
LOSS = LossConfig(classification="softmax", match=MatchCost(class_cost=1), giou_eps=0)
SIZES = [(61, 83), (50, 70)]


def tiny(**changes: object) -> Yolos:
    """Every parameter moved off its initial value."""
    torch.manual_seed(0)
    student = Yolos(replace(TINY, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return student


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """hustvl/YOLOS's names to those of transformers' `YolosForObjectDetection`."""
    table = [
        (r"backbone\.cls_token", "vit.embeddings.cls_token"),
        (r"backbone\.det_token", "vit.embeddings.detection_tokens"),
        (r"backbone\.pos_embed", "vit.embeddings.position_embeddings"),
        (r"backbone\.mid_pos_embed", "vit.encoder.interpolation.mid_position_embeddings"),
        (r"backbone\.patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
        (r"backbone\.blocks\.(\d+)\.norm1\.", r"vit.encoder.layer.\1.layernorm_before."),
        (r"backbone\.blocks\.(\d+)\.norm2\.", r"vit.encoder.layer.\1.layernorm_after."),
        (r"backbone\.blocks\.(\d+)\.attn\.proj", r"vit.encoder.layer.\1.attention.output.dense"),
        (r"backbone\.blocks\.(\d+)\.mlp\.fc1\.", r"vit.encoder.layer.\1.intermediate.dense."),
        (r"backbone\.blocks\.(\d+)\.mlp\.fc2\.", r"vit.encoder.layer.\1.output.dense."),
        (r"backbone\.norm\.", "vit.layernorm."),
        (r"class_embed\.", "class_labels_classifier."),
        (r"bbox_embed\.", "bbox_predictor."),
    ]
    found = {}
    for key, value in state.items():
        qkv = re.fullmatch(r"backbone\.blocks\.(\d+)\.attn\.qkv\.(\w+)", key)
        if qkv:
            stem = f"vit.encoder.layer.{qkv[1]}.attention.attention"
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"{stem}.{name}.{qkv[2]}"] = part
            continue
        for pattern, name in table:
            if re.match(pattern, key):
                found[re.sub(pattern, name, key)] = value
    return found


@pytest.mark.parametrize("size", [(128, 160), (61, 83), (48, 80)])
def test_transformers_computes_the_same(padded, size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    # transformers has one size for all tables
    student = tiny(mid_table_size=(48, 80)).double().eval()
    config = transformers.YolosConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        image_size=[48, 80],
        num_detection_tokens=9,
        num_labels=7,
        layer_norm_eps=1e-6,
    )
    reference = transformers.YolosForObjectDetection(config).double().eval()
    reference.load_state_dict(to_transformers(export_official(student)))
    images, mask = padded([size, (40, 50)])
    with torch.no_grad():
        mine = student(images.double(), mask).last
        theirs = reference(images.double())
    torch.testing.assert_close(mine.logits, theirs.logits, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(mine.boxes, theirs.pred_boxes, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "n_parameters"),
    [
        ({}, 30_684_768),
        (
            {
                "backbone": "deit_tiny_patch16_224",
                "table_size": (800, 1333),
                "mid_table_size": None,
            },
            6_488_736,
        ),
    ],
)
def test_official_sizes(changes: dict, n_parameters: int) -> None:
    with torch.device("meta"):
        student = build_student(YolosConfig(**changes))
    assert sum(p.numel() for p in student.parameters()) == n_parameters


def test_one_layer_with_no_object_as_last_logit(padded) -> None:
    output = tiny().eval()(*padded(SIZES))
    assert len(output.layers) == 1
    assert output.classification == "softmax"
    assert output.last.logits.shape == (2, 9, 8)
    assert output.last.boxes.shape == (2, 9, 4)
    found = top_k(output, torch.tensor(SIZES), TINY.top_k)
    assert [len(each.scores) for each in found] == [5, 5]
    assert max(int(each.labels.max()) for each in found) < 7


def test_padding_is_seen_as_black_pixels(padded) -> None:
    images, mask = padded(SIZES)
    student = tiny().eval()
    with torch.no_grad():
        masked = student(images, mask).last
        plain = student(images, torch.zeros_like(mask)).last
    assert torch.equal(masked.logits, plain.logits)


def test_the_rest_of_the_batch_does_not_matter(padded) -> None:
    images, mask = padded([*SIZES, (61, 40)])
    student = tiny().eval()
    with torch.no_grad():
        together = student(images, mask).last
        alone = student(images[1:2], mask[1:2]).last
    torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.boxes[1:2], alone.boxes, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (16, 16), (33, 31)])
def test_odd_sizes(padded, size: tuple[int, int]) -> None:
    with torch.no_grad():
        last = tiny().eval()(*padded([size])).last
    assert last.logits.isfinite().all()
    assert last.boxes.shape == (1, 9, 4)


@pytest.mark.parametrize("counts", [(2, 3), (0, 3), (0, 0)])
def test_a_step_moves_every_parameter(padded, truth, counts: tuple[int, int]) -> None:
    student = tiny(drop_path=0.1, checkpointing=True).train()
    optimizer = make_optimizer(student, OptimConfig(), torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    targets = truth(*counts)
    criterion = Criterion(LOSS)
    criterion(student(*padded(SIZES), targets), criterion.supervise(targets)).total.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # without a box the box head has nothing to learn, in a batch of both it has
        if sum(counts) or not name.startswith("boxes."):
            assert parameter.grad.abs().max() > 0, name
    optimizer.step()
    if sum(counts):
        for name, parameter in student.named_parameters():
            assert not torch.equal(parameter, before[name]), name


def test_checkpointing_changes_nothing(padded, truth) -> None:
    found = []
    for checkpointing in (False, True):
        student = tiny(checkpointing=checkpointing).train()
        targets, criterion = truth(2, 3), Criterion(LOSS)
        criterion(student(*padded(SIZES)), criterion.supervise(targets)).total.backward()
        found.append([p.grad for p in student.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_stochastic_depth_is_off_in_evaluation(padded) -> None:
    student = tiny(drop_path=0.5)
    batch = padded(SIZES)
    with torch.no_grad():
        quiet = [student.eval()(*batch).last.logits for _ in range(2)]
        loud = [student.train()(*batch).last.logits for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*loud)


@pytest.mark.parametrize("background", [0.5, 1.0])
def test_teachers_supervise(padded, truth, background: float) -> None:
    student = tiny().train()
    sure, unsure = truth(2, 3), truth(3, 0)
    unsure = [Targets(t.labels, t.boxes, 0.3 * t.scores) for t in unsure]
    loss = replace(LOSS, teacher=replace(LOSS.teacher, background=background))
    criterion = Criterion(loss)
    output = student(*padded(SIZES))
    losses = criterion(output, criterion.supervise(sure, {"a": unsure, "b": [None, *sure[1:]]}))
    parts = losses.parts
    assert {name.split("/")[0] for name in parts} == {"truth", "teacher:a", "teacher:b"}
    assert all(value.isfinite() for value in parts.values())
    assert parts["teacher:a/class/0"] > 0
    assert losses.total.item() == pytest.approx(sum(float(v) for v in parts.values()), rel=1e-5)


def test_no_decay_of_norms_biases_tokens_and_the_first_table() -> None:
    student = tiny()
    names = student.no_weight_decay()
    assert {"backbone.pos_embed", "backbone.cls_token", "backbone.det_token"} <= names
    # as the official code has it
    assert "backbone.mid_pos_embed" not in names
    assert "backbone.blocks.0.norm1.weight" in names
    assert not any(name.startswith(("classes.", "boxes.")) for name in names)
    assert names <= {name for name, _ in student.named_parameters()}
    groups = {g["name"]: len(g["params"]) for g in parameter_groups(student, OptimConfig())}  # type: ignore[arg-type]
    assert groups["backbone_no_decay"] == len(names)


def test_official_round_trip() -> None:
    first, second = tiny(), tiny()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter += 1
    state = export_official(first)
    assert detect_family(state) == "yolos"
    report = load_official(second, state)
    assert report.complete
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    for changes, advice in (
        ({"n_classes": 6}, r"model\.n_classes"),
        ({"n_queries": 5}, r"model\.n_queries"),
        ({"table_size": (64, 64)}, r"model\.table_size"),
        ({"mid_table_size": None}, r"model\.mid_table_size"),
        ({"backbone": "deit_tiny_patch16_224"}, r"model\.backbone"),
    ):
        with pytest.raises(CheckpointError, match=f"Set .*{advice}"):
            load_official(tiny(**changes), state)


def deit(tokens: int = 1) -> dict[str, Tensor]:
    """A classifier of the tiny shape, as facebookresearch/deit stores it."""
    generator = torch.Generator().manual_seed(0)
    own = tiny().backbone.state_dict()
    state = {k: torch.randn(v.shape, generator=generator) for k, v in own.items()}
    del state["det_token"], state["mid_pos_embed"]
    state["pos_embed"] = torch.randn(1, tokens + 196, 64, generator=generator)
    state["head.weight"] = torch.randn(1000, 64, generator=generator)
    state["head.bias"] = torch.zeros(1000)
    return state


def test_a_deit_starts_the_backbone(tmp_path) -> None:
    state = deit()
    torch.save({"model": state}, tmp_path / "deit.pth")
    body = Yolos(replace(TINY, backbone_weights=str(tmp_path / "deit.pth"))).backbone
    assert torch.equal(
        body.get_parameter("blocks.1.attn.qkv.weight"), state["blocks.1.attn.qkv.weight"]
    )
    assert torch.equal(body.norm.bias, state["norm.bias"])
    assert torch.equal(body.pos_embed[:, 0], state["pos_embed"][:, 0])
    grid = state["pos_embed"][:, 1:].mT.unflatten(-1, (14, 14))
    resized = torch.nn.functional.interpolate(grid, (3, 5), mode="bicubic", align_corners=False)
    torch.testing.assert_close(body.pos_embed[:, 1:16], resized.flatten(2).mT)
    # tokens that a classifier has not keep their start
    assert body.pos_embed[:, 16:].std() < 0.03
    assert body.det_token.std() < 0.03


def test_a_distilled_deit_gives_up_its_second_token(tmp_path) -> None:
    state = deit(tokens=2)
    state["dist_token"] = torch.randn(1, 1, 64)
    state["head_dist.weight"] = torch.randn(1000, 64)
    torch.save(state, tmp_path / "deit.pth")
    body = Yolos(replace(TINY, backbone_weights=str(tmp_path / "deit.pth"))).backbone
    assert torch.equal(body.pos_embed[:, 0], state["pos_embed"][:, 1])


def test_weights_that_do_not_fit_are_refused(tmp_path) -> None:
    state = deit()
    state["pos_embed"] = torch.randn(1, 40, 64)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="square table"):
        Yolos(replace(TINY, backbone_weights=str(tmp_path / "odd.pth")))
    state = deit()
    del state["blocks.0.norm1.bias"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"blocks\.0\.norm1\.bias"):
        Yolos(replace(TINY, backbone_weights=str(tmp_path / "less.pth")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet50"}, "deit_small_patch16_224"),
        ({"table_size": (8, 64)}, "table_size must be at least a patch of 16"),
        ({"mid_table_size": (64, 0)}, "mid_table_size"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"n_queries": 0}, "n_queries must be at least 1"),
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
