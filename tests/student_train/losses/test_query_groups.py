"""Groups of queries, as LW-DETR and RF-DETR have them: each is matched with all boxes of every
source, and the IoU-aware class loss with teachers.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from box_store.errors import UsageError
from student_train.losses import Criterion, LossConfig, MatchCost, TeacherLossConfig
from student_train.losses.loop import loop_losses
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets

GROUPS, QUERIES, CLASSES, LAYERS = 3, 5, 6, 2
LOSS = LossConfig(
    classification="ia_bce",
    giou_eps=0,
    match=MatchCost(log_eps=0.0),
    denoising=0,
    teacher=TeacherLossConfig(proposals="weighted"),
)
AS_TRUTH = replace(LOSS, teacher=replace(LOSS.teacher, background=1.0))


def some_boxes(count: int, seed: int, score: float | None = None) -> Targets:
    draw = torch.Generator().manual_seed(seed)
    sides = 0.1 + 0.4 * torch.rand(count, 2, generator=draw, dtype=torch.float64)
    centres = sides / 2 + (1 - sides) * torch.rand(count, 2, generator=draw, dtype=torch.float64)
    scores = torch.rand(count, generator=draw, dtype=torch.float64)
    if score is not None:
        scores = torch.full_like(scores, score)
    labels = torch.randint(0, CLASSES, (count,), generator=draw)
    return Targets(labels, torch.cat([centres, sides], 1), scores)


def in_float32(targets: Targets) -> Targets:
    return replace(targets, boxes=targets.boxes.float(), scores=targets.scores.float())


def an_output(groups: int = GROUPS, images: int = 2, seed: int = 0) -> StudentOutput:
    draw = torch.Generator().manual_seed(seed)

    def one() -> Prediction:
        shape = (images, groups * QUERIES)
        logits = torch.randn(*shape, CLASSES, generator=draw, dtype=torch.float64) - 1
        boxes = 0.1 + 0.5 * torch.rand(*shape, 4, generator=draw, dtype=torch.float64)
        return Prediction(logits.requires_grad_(), boxes.requires_grad_())

    layers = [one() for _ in range(LAYERS)]
    return StudentOutput(layers, proposals=one(), n_groups=groups)


def leaves(output: StudentOutput) -> list[Tensor]:
    assert output.proposals is not None
    return [t for p in (*output.layers, output.proposals) for t in (p.logits, p.boxes)]


def total_and_gradients(
    output: StudentOutput, loss: LossConfig, truth: list[Targets], teachers: dict
) -> tuple[Tensor, list[Tensor]]:
    criterion = Criterion(loss)
    total = criterion(output, criterion.supervise(truth, teachers)).total
    return total, list(torch.autograd.grad(total, leaves(output)))


def assert_same(a: tuple[Tensor, list[Tensor]], b: tuple[Tensor, list[Tensor]], k: float = 1):
    torch.testing.assert_close(a[0], k * b[0], rtol=1e-12, atol=1e-14)
    for mine, other in zip(a[1], b[1], strict=True):
        torch.testing.assert_close(mine, k * other, rtol=1e-10, atol=1e-14)


TRUTH = [some_boxes(3, 1, 1.0), some_boxes(0, 2, 1.0)]
SEEN = [some_boxes(2, 3), some_boxes(4, 4)]


@pytest.mark.parametrize(
    "loss", [LOSS, replace(LOSS, groups="sum"), replace(LOSS, match=MatchCost())]
)
def test_all_at_once_equals_one_at_a_time(loss: LossConfig):
    output = an_output()
    single = StudentOutput(
        [Prediction(p.logits.float(), p.boxes.float()) for p in output.layers],
        proposals=Prediction(*(t.float() for t in (leaves(output)[-2], leaves(output)[-1]))),
        n_groups=GROUPS,
    )
    truth, seen = [in_float32(each) for each in TRUTH], [in_float32(each) for each in SEEN]
    criterion = Criterion(loss)
    teachers = {"a": seen, "b": [None, in_float32(some_boxes(1, 5))]}
    supervisions = criterion.supervise(truth, teachers)
    found, wanted = criterion(single, supervisions), loop_losses(single, supervisions, loss)
    assert set(found.names) == set(wanted.names)
    for name, value in wanted.parts.items():
        torch.testing.assert_close(found.parts[name], value, rtol=1e-5, atol=1e-6)


def test_a_group_is_matched_as_if_it_were_alone():
    output = an_output()
    criterion = Criterion(LOSS)
    supervisions = criterion.supervise(TRUTH, {"a": SEEN})
    together = criterion.matches(output, supervisions)
    for group in range(GROUPS):
        first = group * QUERIES
        alone = StudentOutput([p.queries(first, first + QUERIES) for p in output.layers])
        for source in ("truth/decoder layer", "teacher:a/decoder layer"):
            mine = criterion.matches(alone, supervisions)[source]
            for layer in range(LAYERS):
                for image in range(2):
                    query, target = together[source][layer][image]
                    inside = (query >= first) & (query < first + QUERIES)
                    pairs = torch.stack((query[inside] - first, target[inside]), 1).tolist()
                    wanted = torch.stack(mine[layer][image], 1).tolist()
                    assert sorted(pairs) == sorted(wanted)


def test_the_mean_over_groups_is_that_of_the_groups():
    output = an_output()
    criterion = Criterion(LOSS)
    supervisions = criterion.supervise(TRUTH)
    apart = 0.0
    for first in range(0, GROUPS * QUERIES, QUERIES):
        cut = slice(first, first + QUERIES)
        proposals = Prediction(leaves(output)[-2][:, cut], leaves(output)[-1][:, cut])
        layers = [p.queries(first, first + QUERIES) for p in output.layers]
        alone = StudentOutput(layers, proposals=proposals)
        apart = apart + criterion(alone, supervisions).total
    together = criterion(output, supervisions).total
    torch.testing.assert_close(together, apart / GROUPS, rtol=1e-12, atol=0)
    summed = Criterion(replace(LOSS, groups="sum"))
    torch.testing.assert_close(summed(output, supervisions).total, apart, rtol=1e-12, atol=0)


def test_more_boxes_than_a_group_has_queries():
    many = [some_boxes(QUERIES + 2, 6, 1.0)] * 2
    criterion = Criterion(LOSS)
    found = criterion.matches(an_output(), criterion.supervise(many))
    for query, target in found["truth/decoder layer"][0]:
        assert len(query) == len(target) == GROUPS * QUERIES
        assert sorted(query.tolist()) == list(range(GROUPS * QUERIES))


def test_a_sure_teacher_without_doubt_about_the_rest_is_ground_truth():
    output = an_output()
    truth = total_and_gradients(output, AS_TRUTH, TRUTH, {})
    alone = replace(AS_TRUTH, truth=0.0)
    sure = [replace(each, scores=torch.ones_like(each.scores)) for each in TRUTH]
    # an image without a box is one that the teacher saw, and where it saw none
    taught = replace(alone, teacher=replace(alone.teacher, empty="keep"))
    assert_same(total_and_gradients(output, taught, TRUTH, {"a": sure}), truth)


def test_equal_teachers_add_up_in_any_order_and_linearly():
    output = an_output()
    alone = replace(LOSS, truth=0.0)
    one = total_and_gradients(output, alone, TRUTH, {"a": SEEN})
    three = total_and_gradients(output, alone, TRUTH, dict.fromkeys("abc", SEEN))
    assert_same(three, one, 3)
    other = [some_boxes(1, 7), None]
    both = total_and_gradients(output, LOSS, TRUTH, {"a": SEEN, "b": other})
    assert_same(total_and_gradients(output, LOSS, TRUTH, {"b": other, "a": SEEN}), both)
    halved = replace(alone, teacher=replace(alone.teacher, coefficient=0.5))
    assert_same(total_and_gradients(output, halved, TRUTH, {"a": SEEN}), one, 0.5)


def test_no_teachers_is_no_store_bit_for_bit():
    output = an_output()
    with_none = total_and_gradients(output, LOSS, TRUTH, {})
    without = Criterion(LOSS)
    total = without(output, without.supervise(TRUTH)).total
    assert torch.equal(with_none[0], total)
    nothing = replace(LOSS, teacher=replace(LOSS.teacher, coefficient=0.0))
    assert torch.equal(total_and_gradients(output, nothing, TRUTH, {"a": SEEN})[0], total)


def test_a_box_without_a_score_takes_its_query_and_nothing_else():
    output, alone = an_output(), replace(LOSS, truth=0.0)
    none = [replace(each, scores=torch.zeros_like(each.scores)) for each in SEEN]
    criterion = Criterion(alone)
    losses = criterion(output, criterion.supervise(TRUTH, {"a": none}))
    for name, value in losses.parts.items():
        if "/class/" in name:
            assert value > 0, name
        else:
            assert value == 0, name


def test_the_class_goal_follows_probability_and_overlap():
    """One query, one box: the formula of LW-DETR written out."""
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]], dtype=torch.float64)
    predicted = torch.tensor([[[0.55, 0.5, 0.4, 0.4]]], dtype=torch.float64)
    logits = torch.tensor([[[0.3, -0.7]]], dtype=torch.float64, requires_grad=True)
    output = StudentOutput([Prediction(logits, predicted)], n_groups=1)
    criterion = Criterion(LOSS)
    truth = [Targets.truth(torch.tensor([0]), box)]
    losses = criterion(output, criterion.supervise(truth))
    p = logits.detach()[0, 0].sigmoid()
    iou = (0.35 * 0.4) / (2 * 0.16 - 0.35 * 0.4)
    goal = p[0] ** 0.25 * iou**0.75
    wanted = -goal * p[0].log() - (1 - goal) * (1 - p[0]).log() - p[1] ** 2 * (1 - p[1]).log()
    torch.testing.assert_close(losses.parts["truth/class/0"], wanted, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(losses.total, [logits])
    # the weight of a wrong class is trained too: d/dx of -p^2 log(1 - p)
    slope = -2 * p[1] ** 2 * (1 - p[1]) * (1 - p[1]).log() + p[1] ** 3
    torch.testing.assert_close(gradient[0, 0, 1], slope, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[0, 0, 0], p[0] - goal, rtol=1e-12, atol=0)


def test_an_unknown_way_to_join_groups_is_refused():
    with pytest.raises(UsageError, match="groups: expected mean, sum"):
        LossConfig(groups="product")  # type: ignore[arg-type]
