"""The pairs that all layers share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from box_store.errors import UsageError
from student_train.losses import Criterion, LossConfig
from student_train.losses.matcher import Match
from student_train.losses.union import union_of


def match(*layers: list[tuple[int, int, int]]) -> Match:
    """Layers of (image, query, target)."""
    image, query, target = np.array(layers, np.int64).reshape(len(layers), -1, 3).transpose(2, 0, 1)
    return Match(image[0], query, target)


def pairs(union: Match) -> list[tuple[int, int, int]]:
    return list(zip(union.image, union.query[0], union.target[0], strict=True))


def test_every_query_that_any_layer_matched_is_in_the_union() -> None:
    decoder = match([(0, 1, 0), (0, 2, 1)], [(0, 3, 0), (0, 2, 1)])
    proposals = match([(0, 1, 0), (0, 0, 1)])
    # two queries answer for box 0 and two for box 1
    assert pairs(union_of([decoder, proposals], 5)) == [(0, 0, 1), (0, 1, 0), (0, 2, 1), (0, 3, 0)]


def test_a_query_keeps_the_box_that_most_layers_gave_it() -> None:
    decoder = match([(0, 4, 1)], [(0, 4, 0)], [(0, 4, 2)])
    assert pairs(union_of([decoder, match([(0, 4, 1)])], 5)) == [(0, 4, 1)]


def test_of_equally_frequent_boxes_the_last_decoder_layers_wins_then_the_first() -> None:
    decoder = match([(0, 4, 1), (0, 0, 3)], [(0, 4, 2), (0, 1, 3)])
    assert (0, 4, 2) in pairs(union_of([decoder], 5))
    # neither is the last layer's
    first, rest = match([(0, 4, 2)], [(0, 0, 0)]), match([(0, 4, 1)])
    assert (0, 4, 1) in pairs(union_of([first, rest], 5))


def test_images_do_not_mix_and_may_be_empty() -> None:
    decoder = match([(0, 2, 0), (2, 2, 1)])
    assert pairs(union_of([decoder], 5)) == [(0, 2, 0), (2, 2, 1)]
    nothing = union_of([match([]), match([])], 5)
    assert len(nothing.image) == 0
    assert nothing.query.shape == nothing.target.shape == (1, 0)


@given(st.data())
def test_it_is_what_counting_says(data: st.DataObject) -> None:
    boxes, queries = data.draw(st.integers(1, 4)), 6
    draw = st.permutations(range(queries)).map(
        lambda p: [(0, q, t) for t, q in enumerate(p[:boxes])]
    )
    layers = data.draw(st.lists(draw, min_size=1, max_size=5))
    others = data.draw(st.lists(draw, max_size=2))
    found = union_of([match(*layers), *(match(each) for each in others)], queries)
    counts = Counter(pair for each in (*layers, *others) for pair in each)
    last = set(layers[-1])
    want = {}
    for _, query, target in counts:
        rank = lambda t: (-counts[0, query, t], (0, query, t) not in last, t)  # noqa: B023, E731
        want[query] = min(want.get(query, target), target, key=rank)
    assert pairs(found) == sorted((0, q, t) for q, t in want.items())


def test_layers_with_other_numbers_of_queries_have_no_union(make_output, make_targets) -> None:
    output, truth = make_output(proposals="class"), make_targets(2, 3)
    criterion = Criterion(LossConfig(pairs="union"))
    with pytest.raises(UsageError, match=r"loss\.pairs: expected own.*\[12, 20\]"):
        criterion(output, criterion.supervise(truth))
