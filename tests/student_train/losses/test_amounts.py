"""How much each part of the loss counts: coefficients, schedules, layers, normalisers."""

from dataclasses import replace

import pytest
import torch

from student_train.losses import (
    LossConfig,
    TeacherLossConfig,
)
from student_train.losses import totals as totals_module
from student_train.models.targets import Targets

from .conftest import MakeOutput, MakeTargets, gradients, run, same, teachers_only

# a teacher whose boxes are taken as if they were ground truth
AS_TRUTH = TeacherLossConfig(matched_weight="one", background=1.0)


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
