"""Losses of boxes that are distributions: what must hold whatever the numbers are, in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student_train.losses import Criterion, LossConfig, Losses, TeacherLossConfig, totals
from student_train.models.layers.edge_distribution import bin_distances, edge_distances, move_edges
from student_train.models.output import Denoising, EdgeDistributions, Prediction, StudentOutput
from student_train.models.targets import Targets

IMAGES, QUERIES, CLASSES, BINS, LAYERS = 2, 14, 5, 8, 3
# a teacher whose boxes are taken as if they were ground truth
AS_TRUTH = TeacherLossConfig(background=1.0, proposals="weighted")
D_FINE = LossConfig(classification="vfl", giou_eps=0, pairs="union", teacher=AS_TRUTH)
NAMES = ("vfl", "mal")


def boxes(g: torch.Generator, *shape: int) -> Tensor:
    centre = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * 0.6 + 0.2
    size = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * 0.3 + 0.05
    return torch.cat([centre, size], -1)


def prediction(g: torch.Generator, queries: int = QUERIES) -> Prediction:
    logits = torch.randn(IMAGES, queries, CLASSES, generator=g, dtype=torch.float64)
    return Prediction(logits.requires_grad_(), boxes(g, IMAGES, queries).requires_grad_())


def edges(g: torch.Generator, queries: int = QUERIES) -> EdgeDistributions:
    shape = (IMAGES, queries, 4, BINS + 1)
    logits = [
        torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()
        for _ in range(LAYERS)
    ]
    scale = torch.tensor(4.0, dtype=torch.float64)
    distances = bin_distances(BINS, torch.tensor(0.5, dtype=torch.float64), scale)
    return EdgeDistributions(logits, boxes(g, IMAGES, queries), distances, scale)


def output(seed: int = 0, denoising: list[Targets] | None = None) -> StudentOutput:
    g = torch.Generator().manual_seed(seed)
    made = StudentOutput(
        [prediction(g) for _ in range(LAYERS)],
        proposals=prediction(g),
        initial=prediction(g),
        edges=edges(g),
    )
    if denoising is not None:
        most = max(map(len, denoising))
        pairs = [(i, j) for i, each in enumerate(denoising) for j in range(len(each))]
        image, slot = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
        layers = [prediction(g, 2 * most) for _ in range(LAYERS)]
        made.denoising = Denoising(
            layers, image, slot, slot, 1, 2 * most, prediction(g, 2 * most), edges(g, 2 * most)
        )
    return made


def targets(*counts: int, seed: int = 1, scored: bool = False) -> list[Targets]:
    g = torch.Generator().manual_seed(seed)
    found = []
    for n in counts:
        scores = torch.ones(n, dtype=torch.float64)
        if scored:
            scores = torch.rand(n, generator=g, dtype=torch.float64)
        labels = torch.randint(0, CLASSES, (n,), generator=g)
        found.append(Targets(labels, boxes(g, n), scores))
    return found


def run(
    config: LossConfig,
    made: StudentOutput,
    truth: list[Targets],
    teachers: dict[str, list[Targets | None]] | None = None,
) -> Losses:
    criterion = Criterion(config)
    return criterion(made, criterion.supervise(truth, teachers))


def leaves(made: StudentOutput) -> list[Tensor]:
    assert made.proposals is not None
    assert made.initial is not None
    assert made.edges is not None
    predictions = [*made.layers, made.proposals, made.initial]
    return [*(t for p in predictions for t in (p.logits, p.boxes)), *made.edges.logits]


def gradients(losses: Losses, made: StudentOutput) -> list[Tensor]:
    found = torch.autograd.grad(losses.total, leaves(made), allow_unused=True, retain_graph=True)
    return [
        torch.zeros_like(leaf) if g is None else g
        for g, leaf in zip(found, leaves(made), strict=True)
    ]


def same(left: list[Tensor], right: list[Tensor], factor: float = 1.0) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b * factor, rtol=1e-11, atol=1e-13)


def without_truth(config: LossConfig) -> LossConfig:
    return replace(config, truth=0, denoising=0)


def test_edges_come_back_from_where_they_were_moved_to() -> None:
    g = torch.Generator().manual_seed(0)
    scale = torch.tensor(4.0, dtype=torch.float64)
    reference, moved = boxes(g, 7), torch.randn(7, 4, generator=g, dtype=torch.float64)
    found = move_edges(reference, moved, scale)
    corners = torch.cat([found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2], 1)
    torch.testing.assert_close(edge_distances(reference, corners, scale), moved)
    torch.testing.assert_close(move_edges(reference, torch.zeros_like(moved), scale), reference)


def test_bins_rise_dense_around_zero_and_mirror() -> None:
    found = bin_distances(32, torch.tensor([0.5]), torch.tensor([8.0]))
    steps = found.diff()
    assert len(found) == 33
    assert found[16] == 0
    torch.testing.assert_close(found, -found.flip(0))
    torch.testing.assert_close(found[[-2, -1]], torch.tensor([4.0, 8.0]))
    assert (steps > 0).all()
    assert (steps[16:].diff() > 0).all()


@pytest.mark.parametrize("classification", NAMES)
def test_a_sure_teacher_is_ground_truth_without_distillation(classification: str) -> None:
    config = replace(D_FINE, classification=classification)
    made, truth = output(), targets(4, 6)
    expected = run(replace(config, ddf_loss=0, denoising=0), made, truth)
    taught = run(without_truth(config), made, [], {"t": list(truth)})
    for name, value in taught.parts.items():
        assert value.item() == expected.parts[name.replace("teacher:t", "truth")].item()
    assert not any("/ddf/" in name for name in taught.names)
    assert {name.split("/")[1] for name in taught.names} == {"class", "box", "giou", "fgl"}
    same(gradients(taught, made), gradients(expected, made))


@pytest.mark.parametrize("classification", NAMES)
def test_equal_teachers_add_up_and_truth_distils_once(classification: str) -> None:
    # with and without annotations divided by the same count
    own = replace(D_FINE.teacher, counts="own")
    config = replace(D_FINE, classification=classification, teacher=own)
    made, truth, seen = output(), targets(4, 6), targets(5, 3, seed=2, scored=True)
    plain = run(config, made, truth)
    one = run(without_truth(config), made, [], {"a": list(seen)})
    three = run(config, made, truth, {name: list(seen) for name in "abc"})
    assert three.total.item() == pytest.approx(plain.total.item() + 3 * one.total.item(), rel=1e-13)
    distilled = [name for name in three.names if "/ddf/" in name]
    assert distilled == ["truth/ddf/0", "truth/ddf/1"]
    assert all(three.parts[name] == plain.parts[name] for name in distilled)


def test_the_loss_is_linear_in_lambda_and_blind_to_the_order_of_teachers() -> None:
    made, truth = output(), targets(4, 6)
    a, b = targets(5, 3, seed=2, scored=True), targets(0, 7, seed=3, scored=True)

    def total(scale: float, *names: str) -> Losses:
        weights = {"a": scale, "b": 0.5 * scale}
        config = replace(D_FINE, teacher=replace(AS_TRUTH, coefficients=weights))
        known: dict[str, list[Targets | None]] = {"a": list(a), "b": list(b)}
        return run(config, made, truth, {name: known[name] for name in names})

    alone, once, thrice = total(1), total(1, "a", "b"), total(3, "a", "b")
    rise = (once.total - alone.total).item()
    assert (thrice.total - alone.total).item() == pytest.approx(3 * rise, rel=1e-11)
    same(gradients(once, made), gradients(total(1, "b", "a"), made))


def test_boxes_of_no_worth_add_nothing_to_boxes_and_edges_yet_take_their_query() -> None:
    made = output()
    seen = targets(4, 6, seed=2)
    worthless = [replace(each, scores=torch.zeros_like(each.scores)) for each in seen]
    found = run(without_truth(D_FINE), made, [], {"t": list(worthless)})
    for name, value in found.parts.items():
        assert (value.item() == 0) == (name.split("/")[1] != "class"), name
    # all queries but the matched ones are pushed to the background
    nothing = run(without_truth(D_FINE), made, [], {"t": [replace(t) for t in targets(0, 0)]})
    n = sum(map(len, seen))
    assert found.parts["teacher:t/class/2"] * n < nothing.parts["teacher:t/class/2"]


def test_without_teachers_nothing_changes() -> None:
    truth = targets(4, 6)
    made = output(denoising=truth)
    plain = run(D_FINE, made, truth)
    odd = replace(D_FINE, teacher=TeacherLossConfig(coefficient=7, background=0.1, layers="last"))
    other = run(odd, made, truth, {})
    assert other.names == plain.names
    assert torch.equal(other.values, plain.values)
    same(gradients(other, made), gradients(plain, made))


def test_a_teacher_of_the_last_layer_leaves_the_initial_boxes_alone() -> None:
    made, seen = output(), targets(4, 6, scored=True)
    config = replace(without_truth(D_FINE), teacher=TeacherLossConfig(layers="last"))
    found = run(config, made, [], {"t": list(seen)})
    layers = {name.rsplit("/", 1)[1] for name in found.names}
    assert layers == {str(LAYERS - 1), "proposals"}


def test_the_last_layer_is_not_moved_by_what_others_learn_from_it() -> None:
    made, truth = output(), targets(4, 6)
    with_it = gradients(run(D_FINE, made, truth), made)[-1]
    without = gradients(run(replace(D_FINE, ddf_loss=0), made, truth), made)[-1]
    torch.testing.assert_close(with_it, without)


def test_equal_layers_have_nothing_to_learn() -> None:
    made, truth = output(), targets(4, 6)
    assert made.edges is not None
    made.edges.logits = [made.edges.logits[-1]] * LAYERS
    found = run(D_FINE, made, truth)
    assert found.parts["truth/ddf/0"].item() == pytest.approx(0, abs=1e-15)


def test_an_edge_where_it_should_be_costs_least() -> None:
    """Cross entropy with two neighbouring bins is lowest where both have their share."""
    made, truth = output(), targets(4, 6)
    assert made.edges is not None
    parts = run(D_FINE, made, truth).parts
    union = Criterion(D_FINE).unions(made, Criterion(D_FINE).supervise(truth))["truth"]
    distances, scale = made.edges.distances, made.edges.scale
    best = torch.full_like(made.edges.logits[0], -30.0)
    for image, (query, target) in enumerate(union):
        goal = truth[image].boxes[target]
        corners = torch.cat([goal[:, :2] - goal[:, 2:] / 2, goal[:, :2] + goal[:, 2:] / 2], 1)
        moved = edge_distances(made.edges.reference[image, query], corners, scale)
        for j, q in enumerate(query):
            for e in range(4):
                x = moved[j, e].clamp(distances[0], distances[-1])
                below = int((distances <= x).sum()) - 1
                below = min(below, BINS - 1)
                share = (x - distances[below]) / (distances[below + 1] - distances[below])
                best[image, q, e, below] = torch.log(1 - share + 1e-12)
                best[image, q, e, below + 1] = torch.log(share + 1e-12)
    made.edges.logits = [best] * LAYERS
    ideal = run(D_FINE, made, truth).parts
    for layer in range(LAYERS):
        assert 0 < ideal[f"truth/fgl/{layer}"] < 0.7 * parts[f"truth/fgl/{layer}"]


def test_parts_of_a_step_count_pairs_by_their_boxes() -> None:
    """Two equal halves of a batch make the whole batch's loss."""
    made, truth = output(), targets(4, 6)
    whole = run(D_FINE, made, truth)
    criterion = Criterion(D_FINE)
    supervisions = criterion.supervise(truth)
    both = totals.totals_of([supervisions, supervisions], torch.device("cpu"))
    half = criterion(made, supervisions, both[0])
    assert half.total.item() == pytest.approx(whole.total.item() / 2, rel=1e-12)


def test_batches_without_boxes_are_background_and_distillation() -> None:
    made = output()
    found = run(D_FINE, made, targets(0, 0))
    assert found.total.isfinite()
    for name, value in found.parts.items():
        assert (value.item() > 0) == (name.split("/")[1] in ("class", "ddf")), name
    assert all(gradient.isfinite().all() for gradient in gradients(found, made))
