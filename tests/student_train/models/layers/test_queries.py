import pytest
import torch

from student_train.models.layers.encoder import Tokens, cell_centres, place_maps
from student_train.models.layers.queries import TwoStageQueries, token_anchors


def tokens(valid: tuple[int, int] = (32, 32), size: tuple[int, int] = (32, 32)) -> Tokens:
    mask = torch.ones(1, *size, dtype=torch.bool)
    mask[0, : valid[0], : valid[1]] = False
    maps = [torch.zeros(1, 8, size[0] // s, size[1] // s) for s in (4, 8)]
    return place_maps(maps, mask, torch.zeros(2, 8), 20.0)


def test_anchors_are_cells_of_the_valid_image() -> None:
    anchors, usable = token_anchors(tokens())
    boxes = anchors.sigmoid()
    assert boxes.shape == (1, 64 + 16, 4)
    # the second cell of the second row of level 0, and the first of level 1
    assert boxes[0, 9].tolist() == pytest.approx([1.5 / 8, 1.5 / 8, 0.05, 0.05])
    assert boxes[0, 64].tolist() == pytest.approx([0.5 / 4, 0.5 / 4, 0.1, 0.1])
    assert usable.all()


def test_padding_is_unusable_and_moves_no_anchor() -> None:
    alone, _ = token_anchors(tokens())
    within, usable = token_anchors(tokens((32, 32), (64, 48)))
    first = within[0, : 16 * 12].view(16, 12, 4)[:8, :8].reshape(-1, 4)
    torch.testing.assert_close(first, alone[0, :64])
    assert int(usable.sum()) == 64 + 16
    assert within[0][~usable[0]].isinf().all()


def test_encoder_references_are_cell_centres() -> None:
    centres = cell_centres(tokens((32, 16), (32, 32)))
    # half of the map's width is padding: a valid cell's centre lies in the left half of the map
    assert centres.shape == (1, 80, 2, 2)
    assert centres[0, 0, 0].tolist() == pytest.approx([0.5 / 8, 0.5 / 8])
    assert centres[0, 3, 1].tolist() == pytest.approx([3.5 / 8, 0.5 / 8])


def test_best_tokens_first() -> None:
    torch.manual_seed(0)
    module = TwoStageQueries(10, 8, 3)
    known = tokens((32, 24), (32, 32))
    memory = torch.randn(1, 80, 8)
    queries = module(memory, known)
    best = queries.proposals.logits.amax(-1)[0]
    assert (best[:-1] >= best[1:]).all()
    assert torch.equal(queries.content[0], module.content.weight)
    assert not queries.boxes.requires_grad
    assert queries.proposals.boxes.requires_grad
    torch.testing.assert_close(queries.boxes, queries.proposals.boxes)
    # the box head starts at zero
    torch.testing.assert_close(queries.proposals.anchors, queries.proposals.boxes)


def test_fewer_tokens_than_queries() -> None:
    module = TwoStageQueries(200, 8, 3)
    queries = module(torch.randn(1, 80, 8), tokens())
    assert queries.content.shape == (1, 80, 8)
    assert queries.proposals.token_index.sort().values.tolist() == [list(range(80))]
