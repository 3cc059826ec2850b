"""Deformable DETR, plain and with the tricks, and H-DETR: what they share and where they differ."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from student_train.errors import CheckpointError, ConfigError
from student_train.losses import Criterion, LossConfig, TeacherLossConfig
from student_train.models import (
    DeformableDetr,
    DeformableDetrConfig,
    HDetr,
    HDetrConfig,
    build_student,
)
from student_train.models.config import DeformableConfig
from student_train.models.layers.decoder import DeformableDecoder
from student_train.models.layers.encoder import LayerSizes, Tokens
from student_train.models.layers.heads import LayerHeads
from student_train.models.official import (
    detect_family,
    export_official,
    load_official,
    official_names,
)

SIZES = [(61, 83), (50, 70)]
# of the first image's batch: 8 x 11, 4 x 6, 2 x 3 and 1 x 2 cells
N_TOKENS = 120
KINDS = {
    "plain": DeformableDetrConfig(dropout=0.0),
    "tricks": DeformableDetrConfig(dropout=0.0, mixed_selection=True, look_forward_twice=True),
    "hybrid": HDetrConfig(n_queries_one_to_many=20),
}
LOSS = LossConfig(class_loss=2, giou_eps=0)


@pytest.fixture(scope="module")
def small(tiny_config):
    """A student of a kind, every parameter moved off its initial value."""
    sizes = {field.name: getattr(tiny_config, field.name) for field in fields(DeformableConfig)}

    def make(kind: str, **changes: object) -> DeformableDetr:
        torch.manual_seed(0)
        student = build_student(replace(KINDS[kind], **sizes | changes))
        assert isinstance(student, DeformableDetr)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return student

    return make


def total(student, batch, targets, teachers=None, loss=LOSS):
    criterion = Criterion(loss)
    output = student(*batch, targets)
    return criterion(output, criterion.supervise(targets, teachers))


@pytest.mark.parametrize(
    ("kind", "changes", "head"),
    [
        ("plain", {}, 24_030_361),
        ("tricks", {}, 24_107_161),
        ("hybrid", {"n_queries_one_to_many": 1500}, 24_491_161),
        ("plain", {"backbone": "swin_small_patch4_window7_224"}, 20_507_801),
        ("tricks", {"backbone": "swin_small_patch4_window7_224"}, 20_584_601),
    ],
)
def test_parameters_beside_the_backbone(kind: str, changes: dict, head: int) -> None:
    with torch.device("meta"):
        student = build_student(replace(KINDS[kind], **changes))
    named = student.named_parameters()
    assert sum(p.numel() for name, p in named if not name.startswith("backbone.")) == head


@pytest.mark.parametrize(("n_queries", "head"), [(300, 23_082_137), (900, 23_235_737)])
def test_parameters_of_the_largest(n_queries: int, head: int) -> None:
    config = HDetrConfig(backbone="swin_large_patch4_window7_224", n_queries=n_queries)
    with torch.device("meta"):
        student = HDetr(config)
    backbone = sum(p.numel() for p in student.backbone.parameters())
    assert sum(p.numel() for p in student.parameters()) - backbone == head
    assert 194.5e6 < backbone < 195.5e6


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_moves_every_parameter(small, padded, truth, kind: str) -> None:
    student = small(kind).train()
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0)
    total(student, padded(SIZES), truth(2, 3)).total.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    optimizer.step()
    assert not [name for name, p in student.named_parameters() if torch.equal(p, before[name])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [(0, 3), (0, 0)])
def test_images_without_boxes(small, padded, truth, kind: str, counts) -> None:
    student = small(kind).train()
    losses = total(student, padded(SIZES), truth(*counts))
    losses.total.backward()
    assert losses.total.isfinite()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_output(small, padded, truth, kind: str) -> None:
    student = small(kind).train()
    output = student(*padded(SIZES), truth(2, 3))
    assert [p.boxes.shape for p in output.layers] == [(2, 12, 4)] * 3
    assert [p.logits.shape for p in output.layers] == [(2, 12, 7)] * 3
    # every token proposes, whether it becomes a query or not
    assert output.proposals.boxes.shape == (2, N_TOKENS, 4)
    assert output.proposal_labels == "binary"
    assert output.denoising is None
    extra = 20 if kind == "hybrid" else 0
    best = output.proposals.logits[0, output.proposals.token_index[0], 0]
    assert len(best) == 12 + extra
    assert best.tolist() == sorted(output.proposals.logits[0, :, 0].tolist())[::-1][: len(best)]
    if kind == "hybrid":
        assert [p.boxes.shape for p in output.one_to_many] == [(2, 20, 4)] * 3
    else:
        assert output.one_to_many is None


def test_the_second_set_is_seen_by_no_query_of_the_first(small, padded) -> None:
    student = small("hybrid", norm="frozen")
    with torch.no_grad():
        both, alone = student.train()(*padded(SIZES)), student.eval()(*padded(SIZES))
    assert alone.one_to_many is None
    for a, b in zip(both.layers, alone.layers, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-4, rtol=1e-4)


def test_the_first_set_is_seen_by_no_query_of_the_second(small, padded) -> None:
    student = small("hybrid", norm="frozen").train()
    gradient = torch.autograd.grad(
        student(*padded(SIZES)).one_to_many[-1].logits.sum(), student.queries.content.weight
    )[0]
    assert not gradient[:12].any()
    assert gradient[12:].any(1).all()


def test_in_evaluation_h_detr_is_deformable_detr_with_tricks(small, padded) -> None:
    hybrid, tricks = small("hybrid").eval(), small("tricks").eval()
    state = hybrid.state_dict()
    state["queries.content.weight"] = state["queries.content.weight"][:12]
    tricks.load_state_dict(state)
    with torch.no_grad():
        a, b = hybrid(*padded(SIZES)), tricks(*padded(SIZES))
    for mine, other in zip([*a.layers, a.proposals], [*b.layers, b.proposals], strict=True):
        assert torch.equal(mine.logits, other.logits)
        assert torch.equal(mine.boxes, other.boxes)


def test_fewer_tokens_than_queries(small, padded, truth) -> None:
    batch = padded([(24, 33)])
    # 3 x 5 + 2 x 3 + 1 x 2 + 1 x 1 tokens: the second set gets what the first leaves
    output = small("hybrid").train()(*batch)
    assert output.layers[0].boxes.shape[1] == 12
    assert output.one_to_many[0].boxes.shape[1] == 12
    student = small("hybrid", n_queries=30).train()
    output = student(*batch)
    assert output.layers[0].boxes.shape[1] == 24
    assert output.one_to_many is None
    losses = total(student, batch, truth(2))
    losses.total.backward()
    assert losses.total.isfinite()


@pytest.mark.parametrize(("kind", "twice"), [("plain", False), ("tricks", True)])
def test_which_box_heads_a_layer_trains(small, padded, kind: str, twice: bool) -> None:
    student = small(kind).train()
    student(*padded(SIZES)).layers[2].boxes.sum().backward()
    trained = [head.layers[-1].bias.grad is not None for head in student.heads.boxes]
    assert trained == [False, twice, True]
    # the proposals that queries start from are detached
    assert student.queries.boxes.layers[-1].bias.grad is None


def test_where_contents_come_from(small, padded) -> None:
    plain, tricks = small("plain"), small("tricks")
    assert plain.queries.content is None
    batch = padded(SIZES)
    for student in (plain, tricks):
        memory, tokens = student.encode(*batch)
        start = student.queries(memory, tokens)
        start.content.sum().backward()
        assert start.position.shape == start.content.shape == (2, 12, 32)
    assert plain.queries.embedding.project.weight.grad[32:].any()
    assert tricks.queries.embedding.project.weight.grad is None
    assert torch.equal(tricks.queries.content.weight.grad, torch.full((12, 32), 2.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("canvas", [(128, 128), (256, 64)])
def test_padding_changes_nothing_in_the_transformer(small, maps, kind: str, canvas) -> None:
    # a backbone's convolutions tell the border of an image from padding, so it is left out
    student = small(kind).eval()
    outputs = []
    for height, width in ((128, 64), canvas):
        student.backbone, student.neck = nn.Identity(), maps(height, width)
        mask = torch.ones(1, height, width, dtype=torch.bool)
        mask[:, :128, :64] = False
        with torch.no_grad():
            outputs.append(student(torch.zeros(1, 3, height, width), mask))
    for a, b in zip(outputs[0].layers, outputs[1].layers, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_batch_does_not_matter(small, padded, kind: str) -> None:
    student = small(kind).eval()
    images, mask = padded([*SIZES, (61, 40)])
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        straight, turned = student(images, mask).last, student(images[order], mask[order]).last
    torch.testing.assert_close(straight.logits[order], turned.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(straight.boxes[order], turned.boxes, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (64, 64)])
def test_odd_sizes(small, padded, size) -> None:
    with torch.no_grad():
        output = small("hybrid").eval()(*padded([size]))
    assert output.last.logits.isfinite().all()
    assert output.last.boxes.isfinite().all()


def test_teachers_supervise_both_sets(small, padded, truth) -> None:
    student = small("hybrid").train()
    teachers = {"yolox": truth(3, 1), "rtmdet": [None, truth(2)[0]]}
    groups = ("matching", "one_to_many")
    loss = replace(LOSS, teacher=TeacherLossConfig(groups=groups))
    losses = total(student, padded(SIZES), truth(2, 3), teachers, loss)
    sources = {name.split("/")[0] for name in losses.names}
    assert sources == {
        "truth",
        "one_to_many",
        *(f"teacher:{name}{tail}" for name in teachers for tail in ("", "+one_to_many")),
    }
    assert "teacher:yolox/class/proposals" in losses.names
    assert "teacher:yolox+one_to_many/class/proposals" not in losses.names
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in student.parameters())
    # by default the second set learns from the ground truth alone
    default = total(student, padded(SIZES), truth(2, 3), teachers)
    assert not any("+one_to_many" in name for name in default.names)


def test_proposals_are_taught_that_there_is_something_not_what(small, padded, truth) -> None:
    student = small("tricks").train()
    targets = truth(2, 3)
    others = [replace(each, labels=(each.labels + 1) % 7) for each in targets]
    losses = [total(student, padded(SIZES), each).parts for each in (targets, others)]
    assert losses[0]["truth/class/proposals"] == losses[1]["truth/class/proposals"]
    assert losses[0]["truth/class/2"] != losses[1]["truth/class/2"]


@pytest.mark.parametrize("kind", KINDS)
def test_initial_values(tiny_config, kind: str) -> None:
    torch.manual_seed(0)
    config = replace(KINDS[kind], backbone=tiny_config.backbone, n_classes=7, dim=64, ffn_dim=64)
    student = build_student(replace(config, encoder_layers=1, n_queries=100))
    for head in (*student.heads.classes, student.queries.classes):
        torch.testing.assert_close(head.bias.sigmoid(), torch.full((7,), 0.01))
        assert torch.equal(head.weight, student.heads.classes[0].weight)
    for head in (*student.heads.boxes, student.queries.boxes):
        assert not head.layers[-1].weight.any()
        assert not head.layers[-1].bias.any()
        assert torch.equal(head.layers[0].weight, student.heads.boxes[0].layers[0].weight)
    assert student.level_embedding.std() > 0.8
    # Xavier: uniform up to sqrt(6 / (columns + rows))
    assert 0.1 < student.queries.embedding.project.weight.abs().max() < (6 / 256) ** 0.5
    assert 0.14 < student.encoder.layers[0].linear1.weight.abs().max() < (6 / 128) ** 0.5
    if kind != "plain":
        assert 0.9 < student.queries.content.weight.std() < 1.1


def test_dropout_reaches_every_layer(small) -> None:
    student = small("plain", dropout=0.25)
    for part in (student.encoder, student.decoder):
        rates = {m.p for m in part.modules() if isinstance(m, nn.Dropout)}
        assert rates == {0.25}
    assert all(layer.self_attn.dropout == 0.25 for layer in student.decoder.layers)
    assert DeformableDetrConfig().dropout == 0.1
    assert HDetrConfig().dropout == 0.0


def test_checkpointing_changes_no_gradient(small, padded, truth) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = small("hybrid", checkpointing=checkpointing).train()
        runs: list[nn.Module] = []
        layers = [*student.encoder.layers, *student.decoder.layers]
        for layer in layers:
            layer.register_forward_pre_hook(lambda layer, _, runs=runs: runs.append(layer))
        total(student, padded(SIZES), truth(2, 3)).total.backward()
        assert sorted(map(runs.count, layers)) == [2 if checkpointing else 1] * len(layers)
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_keeps_predictions_in_float32(small, padded, kind: str) -> None:
    student = small(kind).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = student(*padded(SIZES))
    for prediction in (*output.layers, *(output.one_to_many or []), output.proposals):
        assert prediction.logits.dtype == torch.float32
        assert prediction.boxes.dtype == torch.float32
        assert prediction.boxes.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_official_names_round_trip(small, kind: str) -> None:
    first, second = small(kind), small(kind)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter += 1
    state = export_official(first)
    report = load_official(second, state)
    assert report.complete
    # heads of three decoder layers and the encoder, registered twice, eight tensors each
    assert report.copies == 4 * 8
    own = second.state_dict()
    assert all(torch.equal(own[k], v) for k, v in first.state_dict().items())
    assert detect_family(state) == "deformable_detr"
    assert torch.equal(state["class_embed.3.weight"], first.queries.classes.weight)
    assert torch.equal(
        state["transformer.decoder.bbox_embed.0.layers.2.bias"], state["bbox_embed.0.layers.2.bias"]
    )
    assert ("query_embed.weight" in state) == (kind != "plain")
    assert "transformer.pos_trans_norm.weight" in state


def test_official_names_of_swin() -> None:
    with torch.device("meta"):
        student = HDetr(HDetrConfig(backbone="swin_tiny_patch4_window7_224"))
    names = official_names(student, "backbone.body.layers.0.blocks.0.attn.qkv.weight")
    assert names == ["backbone.0.body.layers.0.blocks.0.attn.qkv.weight"]


def test_a_checkpoint_of_other_queries_is_explained(small) -> None:
    with pytest.raises(CheckpointError, match=r"model\.n_queries"):
        load_official(small("hybrid"), export_official(small("hybrid", n_queries=13)))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="n_queries_one_to_many"):
        HDetrConfig(n_queries_one_to_many=-1)


class Heads(LayerHeads):
    """Says of every query that its box lies 1 further right, in logits, and 1 larger."""

    def __init__(self) -> None:
        super().__init__(32, 2, 1, shared=True)

    def locate(self, layer: int, state: torch.Tensor) -> torch.Tensor:
        change = torch.zeros(*state.shape[:2], 4)
        change[..., 0] = change[..., 2:] = 1.0
        return change


@pytest.mark.parametrize(("refinement", "rights"), [("none", [1, 1, 1]), ("detached", [1, 2, 3])])
@pytest.mark.parametrize("point", [True, False])
def test_rules_of_refinement(refinement, rights: list[int], point: bool) -> None:
    decoder = DeformableDecoder(
        2, LayerSizes(32, 32, 2, 1, 2), refinement=refinement, predict_input=True
    )
    tokens = Tokens(
        content=torch.zeros(1, 4, 32),
        position=torch.zeros(1, 4, 32),
        mask=torch.zeros(1, 4, dtype=torch.bool),
        shapes=((2, 2),),
        valid_ratios=torch.ones(1, 1, 2),
    )
    reference = torch.full((1, 3, 2 if point else 4), 0.5)
    content = torch.randn(1, 3, 32)
    found = decoder(content, reference, tokens.content, tokens, Heads(), position=content)
    # one prediction of the input, one a layer; a point has no size to start from
    logits = [each.boxes[0, 0].logit() for each in found]
    torch.testing.assert_close(torch.stack(logits)[:, 0], torch.tensor(rights).float())
    torch.testing.assert_close(torch.stack(logits)[:, 2], torch.tensor(rights).float())
    assert torch.stack(logits)[:, 1].abs().max() < 1e-6
