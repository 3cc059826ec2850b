"""What the loss must satisfy whatever the numbers are."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from box_store.errors import UsageError
from student_train.losses import (
    Criterion,
    LossConfig,
    Losses,
    NonFinitePrediction,
    Supervision,
    TeacherLossConfig,
)
from student_train.losses import totals as totals_module
from student_train.models.output import Prediction, StudentOutput
from student_train.models.targets import Targets

MakeTargets = Callable[..., list[Targets]]
MakeOutput = Callable[..., StudentOutput]

# a teacher whose boxes are taken as if they were ground truth
AS_TRUTH = TeacherLossConfig(matched_weight="one", background=1.0)


def teachers_only(**options: object) -> LossConfig:
    return LossConfig(truth=0, denoising=0, teacher=TeacherLossConfig(**options))  # type: ignore[arg-type]


def run(
    config: LossConfig,
    output: StudentOutput,
    truth: list[Targets],
    teachers: dict[str, list[Targets | None]] | None = None,
    epoch: float = 0,
) -> Losses:
    criterion = Criterion(config)
    output = replace(output, classification=config.form)
    return criterion(output, criterion.supervise(truth, teachers, epoch))


def leaves(output: StudentOutput) -> list[Tensor]:
    predictions = [*output.layers, *(output.one_to_many or [])]
    if output.proposals is not None:
        predictions.append(output.proposals)
    return [tensor for p in predictions for tensor in (p.logits, p.boxes)]


def gradients(losses: Losses, output: StudentOutput) -> list[Tensor]:
    found = torch.autograd.grad(losses.total, leaves(output), allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(leaf) if g is None else g
        for g, leaf in zip(found, leaves(output), strict=True)
    ]


def same(left: list[Tensor], right: list[Tensor], factor: float = 1.0) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b * factor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["focal", "softmax", "vfl"])
@pytest.mark.parametrize("labels", ["class", "binary"])
def test_sure_teacher_with_full_background_is_ground_truth(
    make_output: MakeOutput, make_targets: MakeTargets, form: str, labels: str
) -> None:
    output, boxes = make_output(proposals=labels), make_targets(4, 6)
    config = LossConfig(classification=form, teacher=AS_TRUTH)  # type: ignore[arg-type]
    truth = run(config, output, boxes)
    teacher = run(replace(config, truth=0, denoising=0), output, [], {"t": list(boxes)})
    assert truth.total.item() == teacher.total.item()
    for name, value in truth.parts.items():
        assert teacher.parts[name.replace("truth", "teacher:t")].item() == value.item()
    same(gradients(truth, output), gradients(teacher, output))


def test_weight_one_ignores_scores(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, scored = make_output(), make_targets(4, 6, scored=True)
    sure = [replace(each, scores=torch.ones(len(each))) for each in scored]
    config = replace(teachers_only(), teacher=AS_TRUTH)
    ours = run(config, output, [], {"t": list(scored)})
    assert ours.total.item() == run(LossConfig(denoising=0), output, sure).total.item()


def test_identical_teachers_add_up(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(proposals="class"), make_targets(4, 6, scored=True)
    one = run(teachers_only(), output, [], {"a": list(boxes)})
    three = run(teachers_only(), output, [], {name: list(boxes) for name in "abc"})
    assert three.total.item() == pytest.approx(3 * one.total.item(), rel=1e-6)
    same(gradients(three, output), gradients(one, output), 3)


def test_lambda_scales_the_gradient(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(proposals="class"), make_targets(4, 6, scored=True)
    one = run(teachers_only(), output, [], {"t": list(boxes)})
    scaled = run(teachers_only(coefficient=0.3), output, [], {"t": list(boxes)})
    same(gradients(scaled, output), gradients(one, output), 0.3)
    by_name = teachers_only(coefficients={"t": 0.3})
    assert run(by_name, output, [], {"t": list(boxes)}).total.item() == scaled.total.item()
    assert run(by_name, output, [], {"u": list(boxes)}).total.item() == one.total.item()


def test_order_of_boxes_does_not_matter(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, truth = make_output(proposals="class"), make_targets(4, 6)
    teacher = make_targets(5, 3, seed=2, scored=True)

    def shuffled(boxes: list[Targets]) -> list[Targets]:
        g = torch.Generator().manual_seed(3)
        orders = [torch.randperm(len(each), generator=g) for each in boxes]
        return [
            Targets(each.labels[o], each.boxes[o], each.scores[o])
            for each, o in zip(boxes, orders, strict=True)
        ]

    config = LossConfig()
    left = run(config, output, truth, {"t": list(teacher)})
    right = run(config, output, shuffled(truth), {"t": list(shuffled(teacher))})
    assert left.total.item() == pytest.approx(right.total.item(), rel=1e-6)
    same(gradients(left, output), gradients(right, output))


def test_without_teachers_nothing_changes(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    truth = make_targets(4, 6)
    output = make_output(proposals="class", denoising=truth)
    plain = run(LossConfig(), output, truth)
    odd = TeacherLossConfig(coefficient=7, background=0.1, layers="last", label="soft")
    without = run(LossConfig(teacher=odd), output, truth, {})
    stopped = TeacherLossConfig(schedule="stop:2")
    after = run(
        LossConfig(teacher=stopped), output, truth, {"t": list(make_targets(3, 3))}, epoch=2
    )
    for losses in (without, after):
        assert losses.names == plain.names
        assert torch.equal(losses.values, plain.values)
        for a, b in zip(gradients(losses, output), gradients(plain, output), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("form", ["focal", "softmax"])
def test_uncovered_image_adds_nothing(
    make_output: MakeOutput, make_targets: MakeTargets, form: str
) -> None:
    output, (first, _) = make_output(proposals="class"), make_targets(4, 6, scored=True)
    config = replace(teachers_only(), classification=form)  # type: ignore[arg-type]
    losses = run(config, output, [], {"t": [first, None]})
    assert losses.total.item() > 0
    for gradient in gradients(losses, output):
        assert gradient[0].abs().max() > 0
        assert gradient[1].abs().max() == 0
    # the same as if the batch were that image alone
    alone = StudentOutput([cut(layer) for layer in output.layers], proposals=cut(output.proposals))
    assert losses.total.item() == pytest.approx(
        run(config, alone, [], {"t": [first]}).total.item(), rel=1e-6
    )


def cut(prediction: Prediction | None) -> Prediction:
    assert prediction is not None
    return Prediction(prediction.logits[:1], prediction.boxes[:1])


def test_teacher_that_saw_no_image_of_the_batch(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, truth = make_output(proposals="class"), make_targets(4, 6)
    plain = run(LossConfig(), output, truth)
    with_teacher = run(LossConfig(), output, truth, {"t": [None, None]})
    assert with_teacher.folded()["teacher:t"] == 0
    assert with_teacher.total.item() == pytest.approx(plain.total.item(), rel=1e-6)
    same(gradients(with_teacher, output), gradients(plain, output))


@pytest.mark.parametrize(
    ("empty", "had_boxes", "pushes"),
    [
        ("had_boxes", True, True),
        ("had_boxes", False, False),
        ("keep", True, True),
        ("keep", False, True),
        ("none", True, False),
        ("none", False, False),
    ],
)
def test_covered_image_without_boxes(
    make_output: MakeOutput,
    make_targets: MakeTargets,
    empty: str,
    had_boxes: bool,
    pushes: bool,
) -> None:
    output, (first, second) = make_output(), make_targets(4, 0, scored=True)
    second = replace(second, had_boxes=had_boxes)
    losses = run(teachers_only(empty=empty), output, [], {"t": [first, second]})
    logits, boxes = gradients(losses, output)[:2]
    assert boxes[1].abs().max() == 0
    assert (logits[1].abs().max() > 0) == pushes
    if pushes:
        # the unmatched term alone: background times the focal loss of "nothing here", over N = 4
        leaf = output.layers[0].logits.detach()[1].requires_grad_()
        p = leaf.sigmoid()
        (0.5 / 4 * (0.75 * p**2 * -(1 - p).log()).sum()).backward()
        torch.testing.assert_close(logits[1], leaf.grad)


def test_more_boxes_than_queries(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(), make_targets(30, 2, scored=True)
    criterion = Criterion()
    supervisions = criterion.supervise(boxes, {"t": list(boxes)})
    losses = criterion(output, supervisions)
    assert math.isfinite(losses.total.item())
    queries, targets = criterion.matches(output, supervisions)["teacher:t/decoder layer"][0][0]
    assert sorted(queries.tolist()) == list(range(12))
    assert len(set(targets.tolist())) == 12


def test_score_zero_silences_a_matched_query(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(), make_targets(3, 3)
    boxes[0].scores[:] = torch.tensor([0.0, 1.0, 1.0])
    criterion = Criterion(teachers_only(proposals="off"))
    supervisions = criterion.supervise([], {"t": list(boxes)})
    logits, box = gradients(criterion(output, supervisions), output)[:2]
    queries, targets = criterion.matches(output, supervisions)["teacher:t/decoder layer"][0][0]
    silent = queries[targets == 0]
    assert logits[0, silent].abs().max() == 0
    assert box[0, silent].abs().max() == 0
    assert logits[0, queries[targets == 1]].abs().max() > 0


def test_score_to_a_power(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(), make_targets(4, 6, scored=True)
    squared = [replace(each, scores=each.scores**2) for each in boxes]
    left = run(teachers_only(matched_weight="power:2"), output, [], {"t": list(boxes)})
    right = run(teachers_only(), output, [], {"t": list(squared)})
    assert left.total.item() == pytest.approx(right.total.item(), rel=1e-6)


def test_background_zero_leaves_unmatched_queries_alone(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(), make_targets(4, 6, scored=True)
    criterion = Criterion(teachers_only(background=0))
    supervisions = criterion.supervise([], {"t": list(boxes)})
    logits = gradients(criterion(output, supervisions), output)[0]
    queries, _ = criterion.matches(output, supervisions)["teacher:t/decoder layer"][0][0]
    unmatched = sorted(set(range(12)) - set(queries.tolist()))
    assert logits[0, unmatched].abs().max() == 0
    assert logits[0, queries].abs().amax(-1).min() > 0


def test_last_layer_only(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(), make_targets(4, 6, scored=True)
    everywhere = run(teachers_only(), output, [], {"t": list(boxes)})
    last = run(teachers_only(layers="last"), output, [], {"t": list(boxes)})
    assert last.names == ("teacher:t/class/2", "teacher:t/box/2", "teacher:t/giou/2")
    for name, value in last.parts.items():
        assert everywhere.parts[name].item() == value.item()
    gradient = gradients(last, output)
    assert all(g.abs().max() == 0 for g in gradient[:4])
    same(gradient[4:], gradients(everywhere, output)[4:])


def test_proposals(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(proposals="class"), make_targets(4, 6, scored=True)
    sure = [replace(each, scores=torch.ones(len(each))) for each in boxes]
    parts = {
        how: run(teachers_only(proposals=how), output, [], {"t": list(boxes)}).parts
        for how in ("off", "unweighted", "weighted")
    }
    name = "teacher:t/class/proposals"
    assert name not in parts["off"]
    as_truth = run(LossConfig(), output, sure).parts["truth/class/proposals"]
    assert parts["unweighted"][name].item() == as_truth.item()
    assert parts["weighted"][name].item() < parts["unweighted"][name].item()


def test_binary_proposals_only_know_objects(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(proposals="binary"), make_targets(4, 6)
    other = [replace(each, labels=(each.labels + 1) % 4) for each in boxes]
    left, right = run(LossConfig(), output, boxes), run(LossConfig(), output, other)
    name = "truth/class/proposals"
    assert left.parts[name].item() == right.parts[name].item()
    assert left.parts["truth/class/0"].item() != right.parts["truth/class/0"].item()


def test_teacher_on_one_to_many_queries(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(one_to_many=True), make_targets(3, 4)
    config = LossConfig(
        repeat=3,
        teacher=replace(AS_TRUTH, groups=("matching", "one_to_many"), proposals="off"),
    )
    losses = run(config, output, boxes, {"t": list(boxes)})
    for term in ("class", "box", "giou"):
        for layer in range(3):
            ours = losses.parts[f"teacher:t+one_to_many/{term}/{layer}"].item()
            assert ours == losses.parts[f"one_to_many/{term}/{layer}"].item()
    folded = losses.folded()
    assert set(folded) == {"total", "class", "box", "giou", "teacher:t"}
    assert folded["teacher:t"] == pytest.approx(folded["total"] / 2, rel=1e-5)


@pytest.mark.parametrize("form", ["focal", "softmax"])
def test_soft_labels_are_reached_exactly(form: str) -> None:
    # a query that says the score itself has no reason to move, with hard labels it has
    score = 0.7
    targets = [
        Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([score]))
    ]
    logit = math.log(score / (1 - score))
    logits = torch.tensor([[[-30.0, logit, -30.0]]] if form == "focal" else [[[-30.0, logit, 0.0]]])
    logits.requires_grad_()
    output = StudentOutput([Prediction(logits, torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]))])
    for label, moves in (("soft", False), ("hard", True)):
        config = replace(teachers_only(label=label), classification=form, focal_gamma=0)  # type: ignore[arg-type]
        config = replace(config, focal_alpha=0.5)
        total = run(config, output, [], {"t": list(targets)}).total
        (gradient,) = torch.autograd.grad(total, logits)
        assert (gradient.abs().max().item() > 1e-5) == moves


def test_labels_corrected_by_overlapping_truth(make_output: MakeOutput) -> None:
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]])
    truth = [
        Targets.truth(torch.tensor([2, 3]), box),
        Targets.truth(torch.zeros(0).long(), box[:0]),
    ]
    # the first overlaps truth 0 with an IoU of 0.9, the second truth 1 with 0.5, the third nothing
    near = torch.tensor([[0.5, 0.5, 0.36, 0.4], [0.2, 0.2, 0.05, 0.1], [0.8, 0.8, 0.1, 0.1]])
    teacher = [Targets(torch.tensor([0, 0, 0]), near, torch.ones(3)) for _ in range(2)]
    config = LossConfig(teacher=TeacherLossConfig(correct_above_iou=0.8))
    supervisions = Criterion(config).supervise(truth, {"t": list(teacher)})
    first, second = next(s for s in supervisions if s.name == "teacher:t").targets
    assert first is not None
    assert first.labels.tolist() == [2, 0, 0]
    assert second is not None
    assert second.labels.tolist() == [0, 0, 0]
    plain = Criterion(LossConfig()).supervise(truth, {"t": list(teacher)})
    unchanged = next(s for s in plain if s.name == "teacher:t").targets[0]
    assert unchanged is not None
    assert unchanged.labels.tolist() == [0, 0, 0]


def test_schedules(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, boxes = make_output(), make_targets(4, 6, scored=True)

    def teacher_loss(schedule: str, epoch: float) -> float:
        config = LossConfig(teacher=TeacherLossConfig(schedule=schedule))
        losses = run(config, output, boxes, {"t": list(boxes)}, epoch)
        return losses.folded().get("teacher:t", 0.0)

    full = teacher_loss("constant", 100)
    assert teacher_loss("decay:10", 0) == full
    assert teacher_loss("decay:10", 2.5) == pytest.approx(0.75 * full, rel=1e-6)
    assert teacher_loss("decay:10", 12) == 0
    assert teacher_loss("stop:3", 2.99) == full
    assert teacher_loss("stop:3", 3) == 0


def test_parts_add_up_and_fold(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    truth = make_targets(4, 6)
    output = make_output(proposals="class", one_to_many=True, denoising=truth)
    teachers = {"a": list(make_targets(5, 2, seed=4, scored=True)), "b/2": [None, truth[1]]}
    losses = run(LossConfig(), output, truth, teachers)
    parts = losses.parts
    assert sum(v.item() for v in parts.values()) == pytest.approx(losses.total.item(), rel=1e-5)
    assert {"truth/class/0", "denoising/box/2", "teacher:a/giou/proposals"} <= set(parts)
    folded = losses.folded()
    total = folded.pop("total")
    assert total == pytest.approx(losses.total.item(), rel=1e-5)
    assert list(folded) == ["class", "box", "giou", "denoising", "teacher:a", "teacher:b/2"]
    assert sum(folded.values()) == pytest.approx(total, rel=1e-6)
    assert not any(value.requires_grad for value in parts.values())


def test_coefficients(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, truth = make_output(), make_targets(4, 6)
    unit = run(LossConfig(class_loss=1, l1_loss=1, giou_loss=1), output, truth).folded()
    scaled = run(
        LossConfig(class_loss=2, l1_loss=3, giou_loss=4, truth=0.5), output, truth
    ).folded()
    for term, factor in (("class", 1.0), ("box", 1.5), ("giou", 2.0)):
        assert scaled[term] == pytest.approx(factor * unit[term], rel=1e-6)


def test_nothing_in_any_image(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, truth = make_output(proposals="class"), make_targets(0, 0)
    losses = run(LossConfig(), output, truth)
    folded = losses.folded()
    assert folded["class"] > 0
    assert folded["box"] == folded["giou"] == 0
    # every parameter still gets a gradient, as distributed training demands
    found = torch.autograd.grad(losses.total, leaves(output))
    assert all(torch.isfinite(g).all() for g in found)


def test_float32_under_autocast_and_from_bfloat16(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, truth = make_output(proposals="class"), make_targets(4, 6)
    teachers = {"t": list(make_targets(5, 5, seed=3, scored=True))}
    plain = run(LossConfig(), output, truth, teachers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(LossConfig(), output, truth, teachers)
    assert torch.equal(inside.values, plain.values)
    half = StudentOutput([Prediction(p.logits.bfloat16(), p.boxes) for p in output.layers])
    wide = StudentOutput([Prediction(p.logits.float(), p.boxes) for p in half.layers])
    assert torch.equal(run(LossConfig(), half, truth).values, run(LossConfig(), wide, truth).values)


def test_float64(make_output: MakeOutput, make_targets: MakeTargets) -> None:
    output, truth = make_output(), make_targets(4, 6)
    double = StudentOutput([Prediction(p.logits.double(), p.boxes.double()) for p in output.layers])
    total = run(LossConfig(), double, truth).total
    assert total.dtype == torch.float64
    assert total.item() == pytest.approx(run(LossConfig(), output, truth).total.item(), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("layer", "decoder layer 1, image 1"),
        ("proposals", "encoder proposals, image 1"),
        ("denoising", "denoising layer 1, image 1"),
    ],
)
def test_non_finite_predictions_are_named(
    make_output: MakeOutput, make_targets: MakeTargets, place: str, words: str, value: float
) -> None:
    truth = make_targets(4, 0)
    output = make_output(proposals="class", denoising=truth)
    assert output.denoising is not None
    bad = {
        "layer": output.layers[1],
        "proposals": output.proposals,
        "denoising": output.denoising.layers[1],
    }[place]
    assert bad is not None
    with torch.no_grad():
        (bad.boxes if place == "layer" else bad.logits)[1, 3, 2] = value
    with pytest.raises(NonFinitePrediction, match=words):
        run(LossConfig(), output, truth)


def test_finite_predictions_beyond_all_bounds_are_named(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output = make_output()
    with torch.no_grad():
        output.layers[2].boxes[1, 3] = 1e30
    with pytest.raises(NonFinitePrediction, match=r"decoder layer 2.*image 1 of the batch"):
        run(LossConfig(), output, make_targets(4, 6))


def test_normaliser_is_the_mean_over_ranks(
    make_output: MakeOutput, make_targets: MakeTargets, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, truth = make_output(), make_targets(4, 6)
    alone = run(LossConfig(), output, truth)
    dist = totals_module.dist
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    # the other rank has three times as many boxes of everything
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.mul_(4))
    torch.testing.assert_close(run(LossConfig(), output, truth).values, alone.values / 2)
    # a batch without any box counts as one box, whatever the number of ranks
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.mul_(0))
    torch.testing.assert_close(run(LossConfig(), output, truth).values, alone.values * 20)


def test_nothing_to_learn_from_is_an_error(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    with pytest.raises(UsageError, match="nothing supervises"):
        run(LossConfig(truth=0, denoising=0), make_output(), make_targets(4, 6))


def test_supervisions_can_be_written_by_hand(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, boxes = make_output(), make_targets(4, 6)
    losses = Criterion()(output, [Supervision("mine", list(boxes), coefficient=2.0)])
    truth = run(LossConfig(), output, boxes)
    assert losses.total.item() == pytest.approx(2 * truth.total.item(), rel=1e-6)
    assert losses.names[0] == "mine/class/0"


def test_the_form_of_the_loss_is_the_students(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output = replace(make_output(), classification="softmax")
    criterion = Criterion(LossConfig())
    supervisions = criterion.supervise(make_targets(2, 1))
    for compute in (criterion, criterion.matches):
        with pytest.raises(UsageError, match="classification=softmax"):
            compute(output, supervisions)


def test_a_teacher_of_a_softmax_student_by_hand() -> None:
    # three queries, two classes and no-object; one box of score 0.8 at the second query
    logits = torch.tensor([[[0.3, -0.2, 1.0], [1.2, 0.1, -0.4], [-1.0, 0.5, 0.2]]]).double()
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.6, 0.6, 0.2, 0.2], [0.9, 0.1, 0.1, 0.1]]])
    box = torch.tensor([[0.6, 0.6, 0.2, 0.3]])
    teacher = [Targets(torch.tensor([0]), box.double(), torch.tensor([0.8]).double())]
    output = StudentOutput([Prediction(logits.requires_grad_(), boxes.double())])
    config = replace(teachers_only(), classification="softmax", class_loss=1, giou_eps=0)
    losses = run(config, output, [], {"t": list(teacher)})

    log_p = logits.log_softmax(-1)[0]
    # score x 1 for the matched query, background x weight of no-object for the others
    weights = torch.tensor([0.5 * 0.1, 0.8, 0.5 * 0.1]).double()
    said = torch.stack([log_p[0, 2], log_p[1, 0], log_p[2, 2]])
    wanted = -(weights * said).sum() / weights.sum()
    parts = losses.parts
    assert parts["teacher:t/class/0"].item() == pytest.approx(wanted.item())
    # boxes as for any student: divided by the number of boxes
    assert parts["teacher:t/box/0"].item() == pytest.approx(5 * 0.8 * 0.1)
    assert parts["teacher:t/giou/0"].item() == pytest.approx(2 * 0.8 * (1 - 2 / 3))
    (gradient,) = torch.autograd.grad(losses.total, logits)
    p = log_p.exp()
    target = torch.eye(3).double()[[2, 0, 2]]
    wanted_gradient = weights[:, None] * (p - target) / weights.sum()
    torch.testing.assert_close(gradient[0], wanted_gradient)


@pytest.mark.parametrize("classification", ["focal", "softmax"])
def test_few_boxes_of_a_teacher_do_not_outweigh_the_annotations(
    make_output: MakeOutput, make_targets: MakeTargets, classification: str
) -> None:
    # one box a teacher, eight annotated ones: each counts as much as an annotated one
    output, truth, one = make_output(), make_targets(5, 3), make_targets(1, 0)
    config = LossConfig(classification=classification, teacher=AS_TRUTH)  # type: ignore[arg-type]
    own = replace(config, teacher=replace(AS_TRUTH, counts="own"))
    shared, alone = (run(each, output, truth, {"t": list(one)}).parts for each in (config, own))
    for name, value in shared.items():
        if name.startswith("truth/"):
            assert alone[name].item() == value.item()
    for term in ("box", "giou"):
        part = f"teacher:t/{term}/0"
        assert shared[part].item() == pytest.approx(alone[part].item() / 8, rel=1e-5)
    assert shared["teacher:t/class/0"].item() < alone["teacher:t/class/0"].item()
    # a teacher of more boxes than there are annotations has its own count
    many = {"t": list(make_targets(9, 7))}
    left, right = (run(each, output, truth, many).parts for each in (config, own))
    assert {k: v.item() for k, v in left.items()} == {k: v.item() for k, v in right.items()}


def test_without_ground_truth_a_teacher_has_its_own_count(
    make_output: MakeOutput, make_targets: MakeTargets
) -> None:
    output, truth, one = make_output(proposals="class"), make_targets(5, 3), make_targets(1, 0)
    counts = [
        run(teachers_only(counts=counts), output, truth, {"t": list(one)}).total.item()
        for counts in ("own", "at_least_truth")
    ]
    assert counts[0] == counts[1]
