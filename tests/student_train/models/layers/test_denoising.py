import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from student_train.models.layers.denoising import (
    ContrastiveDenoising,
    Noise,
    PlainDenoising,
    attention_mask,
    group_count,
)
from student_train.models.targets import Targets


def noisy(targets, number=10, label_noise=0.5, box_noise=1.0, n_matching=5, noise=None):
    torch.manual_seed(0)
    module = ContrastiveDenoising(7, 8, number, label_noise, box_noise)
    return module, module(targets, n_matching, torch.float32, noise)


@pytest.mark.parametrize(
    ("number", "most", "groups"),
    [(100, 5, 20), (100, 1, 100), (100, 3, 33), (100, 300, 1), (50, 5, 10), (49, 5, 98), (3, 0, 1)],
)
def test_group_count(number: int, most: int, groups: int) -> None:
    assert group_count(number, most) == groups


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4))
def test_attention_mask(groups: int, most: int, n_matching: int) -> None:
    size = 2 * most
    n_noisy = groups * size
    blocked = attention_mask(n_noisy, n_matching, size, torch.device("cpu"))
    for row in range(n_noisy + n_matching):
        for column in range(n_noisy + n_matching):
            if column >= n_noisy:
                want = False
            elif row >= n_noisy:
                want = True
            else:
                want = row // size != column // size
            assert bool(blocked[row, column]) == want


def test_slots_hold_their_targets(truth) -> None:
    targets = truth(2, 0, 3)
    module, queries = noisy(targets, label_noise=0.0, box_noise=0.0)
    assert queries.boxes.shape == (3, queries.n_groups * 2 * 3, 4)
    assert len(queries.slot_index) == queries.n_groups * 5
    for image, slot, index in zip(
        queries.image_index.tolist(),
        queries.slot_index.tolist(),
        queries.target_index.tolist(),
        strict=True,
    ):
        wanted = targets[image]
        # without noise positives and negatives are both the target itself
        for place in (slot, slot + 3):
            torch.testing.assert_close(
                queries.boxes[image, place], wanted.boxes[index], atol=2e-3, rtol=0
            )
            label = module.label_embedding(wanted.labels[index])
            assert torch.equal(queries.content[image, place], label)


def test_unused_slots_are_empty(truth) -> None:
    _, queries = noisy(truth(1, 3))
    used = queries.content.abs().sum(-1) > 0
    assert used[0].view(-1, 3).sum(1).tolist() == [1] * (2 * queries.n_groups)
    assert used[1].all()
    assert (queries.boxes[0][~used[0]] == 0.5).all()


def test_positives_stay_near_and_negatives_move_away() -> None:
    box = torch.tensor([[0.5, 0.5, 0.2, 0.1]])
    _, queries = noisy([Targets.truth(torch.tensor([3]), box)], number=100)
    boxes = queries.boxes[0]
    half = box[0, 2:] / 2
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)
    own = torch.cat((box[0, :2] - half, box[0, :2] + half))
    moved = (corners - own).abs() / torch.cat((half, half))
    assert (moved[0::2] <= 1 + 1e-3).all()
    # a negative whose corners crossed is clamped, so only sides that kept their order are judged
    upright = (boxes[1::2, 2:] > 2e-3).all(1)
    assert upright.any()
    assert (moved[1::2][upright] >= 1 - 1e-3).all()
    assert moved[1::2].max() > 1.5


def test_labels_flip_at_half_the_noise() -> None:
    rows = 4000
    noise = Noise.draw((rows,), 7, torch.device("cpu"), torch.float32)
    noise.label[:] = 6
    module = ContrastiveDenoising(7, 8, 10, 0.5, 1.0)
    flipped = module._noisy_labels(torch.zeros(rows, dtype=torch.long), noise) == 6
    assert flipped.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_boxes_stay_in_the_image(truth) -> None:
    _, queries = noisy(truth(20), box_noise=3.0)
    assert (queries.boxes >= 0).all()
    assert (queries.boxes <= 1).all()


def test_no_targets_no_queries(truth) -> None:
    assert noisy(truth(0, 0))[1] is None


def test_noise_is_reproducible(truth) -> None:
    first, second = noisy(truth(2, 1))[1], noisy(truth(2, 1))[1]
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.content, second.content)


def plain(targets, label_noise=0.2, box_noise=0.4, noise=None):
    torch.manual_seed(0)
    module = PlainDenoising(7, 8, 3, label_noise, box_noise)
    return module, module(targets, 5, torch.float32, noise)


def test_plain_groups_hold_every_target_once(truth) -> None:
    targets = truth(2, 0, 3)
    module, queries = plain(targets, label_noise=0.0, box_noise=0.0)
    assert queries.boxes.shape == (3, 3 * 3, 4)
    assert len(queries.slot_index) == 3 * 5
    for image, slot, index in zip(
        queries.image_index.tolist(),
        queries.slot_index.tolist(),
        queries.target_index.tolist(),
        strict=True,
    ):
        assert slot % 3 == index
        wanted = targets[image]
        torch.testing.assert_close(
            queries.boxes[image, slot], wanted.boxes[index], atol=2e-3, rtol=0
        )
        label = module.label_embedding(wanted.labels[index])
        assert torch.equal(queries.content[image, slot, :-1], label)
    # matching queries see no denoising one; groups do not see each other
    assert queries.blocked[9:, :9].all()
    assert queries.blocked[:3, 3:9].all()
    assert not queries.blocked[:3, :3].any()
    assert not queries.blocked[:, 9:].any()


def test_plain_noise_moves_centres_by_half_sizes_and_sizes_by_shares() -> None:
    box = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    sign = torch.tensor([[1, 0, 1, 0]]).repeat(3, 1)
    amount = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    noise = Noise(torch.ones(3), torch.zeros(3, dtype=torch.long), sign, amount)
    _, queries = plain([Targets.truth(torch.tensor([3]), box)], noise=noise)
    want = torch.tensor([[0.54, 0.38, 0.28, 0.06], [0.52, 0.39, 0.24, 0.08], [0.5, 0.4, 0.2, 0.1]])
    torch.testing.assert_close(queries.boxes[0], want, atol=1e-5, rtol=0)


def test_plain_labels_are_replaced_below_the_share() -> None:
    box = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    flip = torch.tensor([0.1, 0.19, 0.21])
    half = torch.full((3, 4), 0.5)
    noise = Noise(flip, torch.full((3,), 6), half.long(), half)
    module, queries = plain([Targets.truth(torch.tensor([3]), box)], noise=noise)
    labels = module.label_embedding(torch.tensor([6, 6, 3]))
    assert torch.equal(queries.content[0, :, :-1], labels)
