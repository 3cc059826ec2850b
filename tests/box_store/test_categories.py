import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from box_store.categories import Categories, Category, ClassSpace, normalised
from box_store.errors import DataError

TABLE = Categories(
    (Category(4, "motorcycle", "vehicle"), Category(1, "person"), Category(72, "tv"))
)

quick = settings(max_examples=30, deadline=None)
tables = st.dictionaries(
    st.integers(0, 300), st.text(min_size=1).filter(str.strip), min_size=1, max_size=30
).map(lambda rows: Categories(tuple(Category(k, v) for k, v in rows.items())))


def test_the_table_is_ordered_by_id() -> None:
    assert TABLE.ids == (1, 4, 72)
    assert TABLE.names == ("person", "motorcycle", "tv")


def test_json_round_trip_keeps_supercategories() -> None:
    assert Categories.from_coco(TABLE.to_json()) == TABLE
    assert TABLE.to_json()[1] == {"id": 4, "name": "motorcycle", "supercategory": "vehicle"}


@quick
@given(tables)
def test_any_table_survives_json(table: Categories) -> None:
    assert Categories.from_coco(table.to_json()) == table


@pytest.mark.parametrize(
    ("asked", "found"),
    [("person", 1), ("Person", 1), ("motor-cycle", 4), ("motorbike", 4), ("TV monitor", 72)],
)
def test_names_are_found_in_any_common_spelling(asked: str, found: int) -> None:
    assert TABLE.by_name(asked).id == found


@pytest.mark.parametrize(
    ("voc", "coco"),
    [
        ("aeroplane", "airplane"),
        ("sofa", "couch"),
        ("tvmonitor", "tv"),
        ("diningtable", "dining table"),
        ("pottedplant", "potted plant"),
    ],
)
def test_voc_and_coco_spellings_agree(voc: str, coco: str) -> None:
    assert normalised(voc) == normalised(coco)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'persn'\. Did you mean 'person'"):
        TABLE.by_name("persn")
    assert TABLE.find("persn") is None


def test_an_ambiguous_name_is_refused_unless_spelled_exactly() -> None:
    table = Categories((Category(1, "Traffic Light"), Category(2, "traffic-light")))
    assert table.by_name("traffic-light").id == 2
    with pytest.raises(DataError, match="ids 1, 2"):
        table.by_name("trafficlight")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "occurs twice: 'a' and 'b'"),
        ([{"id": "1", "name": "a"}], "whole number"),
        ([{"id": True, "name": "a"}], "whole number"),
        ([{"id": -1, "name": "a"}], "whole number"),
        ([{"id": 1, "name": ""}], "no name"),
        ([{"id": 1}], "needs an `id` and a `name`"),
        (["person"], "needs an `id` and a `name`"),
    ],
)
def test_a_table_that_is_none_is_refused(rows: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Categories.from_coco(rows)


def test_raw_space_counts_up_to_the_largest_id() -> None:
    space = ClassSpace("raw", TABLE)
    assert space.n_classes == 73
    assert space.names[4] == "motorcycle"
    assert space.names[5] == ""
    assert space.to_index([4, 72]).tolist() == [4, 72]


def test_contiguous_space_counts_the_table() -> None:
    space = ClassSpace("contiguous", TABLE)
    assert space.n_classes == 3
    assert space.to_index([72, 1]).tolist() == [2, 0]
    assert space.to_category([2, 0]).tolist() == [72, 1]


@quick
@given(tables, st.sampled_from(["raw", "contiguous"]))
def test_ids_survive_the_way_to_logits_and_back(table: Categories, kind: str) -> None:
    space = ClassSpace(kind, table)  # type: ignore[arg-type]
    index = space.to_index(table.ids)
    assert (index >= 0).all()
    assert (index < space.n_classes).all()
    assert space.to_category(index).tolist() == list(table.ids)
    assert index.dtype == np.int64
    assert space.to_category(index).dtype == np.int32


@pytest.mark.parametrize("kind", ["raw", "contiguous"])
def test_ids_outside_the_table_are_refused_by_name(kind: str) -> None:
    space = ClassSpace(kind, TABLE)  # type: ignore[arg-type]
    for wrong in (2, 500, -1):
        with pytest.raises(DataError, match=str(wrong)):
            space.to_index([1, wrong])
    with pytest.raises(DataError, match="logit indices"):
        space.to_category([space.n_classes])


def test_an_empty_batch_of_ids_stays_empty() -> None:
    assert ClassSpace("contiguous", TABLE).to_index([]).shape == (0,)
    assert ClassSpace("raw", Categories(())).n_classes == 0


def test_large_ids_need_no_table_as_long_as_the_largest() -> None:
    large = Categories((Category(3, "a"), Category(2_000_000_000, "b")))
    space = ClassSpace("contiguous", large)
    assert space.to_index([2_000_000_000, 3]).tolist() == [1, 0]
    assert space.to_category([1, 0]).tolist() == [2_000_000_000, 3]
    with pytest.raises(DataError, match="not in the data set's table"):
        space.to_index([4])
    with pytest.raises(DataError, match=r"data\.class_space=contiguous"):
        ClassSpace("raw", large)
