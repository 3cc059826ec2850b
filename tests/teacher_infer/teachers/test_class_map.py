"""Teacher classes to data-set categories: `teacher_infer.teachers.class_map`."""

import numpy as np
import pytest

from box_store.boxes import Boxes
from box_store.categories import Categories, Category
from box_store.errors import UsageError
from teacher_infer.teachers.class_map import ClassMap

CATEGORIES = Categories(
    (Category(1, "person"), Category(4, "motorcycle"), Category(7, "tv"), Category(90, "kite"))
)
NAMES = ("N/A", "Person", "motorbike", "TV Monitor", "unicorn", "N/A")


def boxes(class_ids: list[int]) -> Boxes:
    n = len(class_ids)
    return Boxes(np.tile([0, 0, 5, 5], (n, 1)), np.linspace(0.9, 0.1, n), class_ids, 10, 10)


def test_names_match_in_spite_of_case_spaces_and_synonyms() -> None:
    built = ClassMap.build(NAMES, CATEGORIES)
    assert built.mapping == {"Person": 1, "motorbike": 4, "TV Monitor": 7, "unicorn": None}


def test_what_matches_nothing_is_said_on_both_sides() -> None:
    built = ClassMap.build(NAMES, CATEGORIES)
    assert built.unmapped == ("unicorn",)
    assert built.unseen == ("kite",)
    assert built.summary() == (
        "3 of 4 teacher classes map to the data set; left out: unicorn; "
        "categories that this teacher doesn't know: kite"
    )


def test_boxes_get_category_ids_and_unmapped_ones_are_dropped_and_counted() -> None:
    built = ClassMap.build(NAMES, CATEGORIES)
    found = boxes([3, 4, 1, 4, 0])
    assert built.apply(found).class_ids.tolist() == [7, 1]
    assert built.apply(found).scores.tolist() == pytest.approx([0.9, 0.5])
    assert built.count_unmapped(found) == {"unicorn": 2, "N/A": 1}


def test_no_boxes_map_to_no_boxes() -> None:
    built = ClassMap.build(NAMES, CATEGORIES)
    assert len(built.apply(Boxes.empty(10, 10))) == 0
    assert built.count_unmapped(Boxes.empty(10, 10)) == {}


@pytest.mark.parametrize(
    ("target", "expected"),
    [("kite", 90), ("Kite", 90), (90, 90), ("90", 90), ("motorbike", 4), ("", None)],
)
def test_overrides_take_names_ids_and_nothing(target: str | int, expected: int | None) -> None:
    built = ClassMap.build(NAMES, CATEGORIES, {"unicorn": target})
    assert built.mapping["unicorn"] == expected


def test_an_override_can_leave_a_class_out_that_has_a_namesake() -> None:
    built = ClassMap.build(NAMES, CATEGORIES, {"Person": ""})
    assert built.unmapped == ("Person", "unicorn")
    assert "person" in built.unseen


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"unicron": "kite"}, "no class 'unicron'. Did you mean 'unicorn'"),
        ({"unicorn": "kit"}, "no such category. Did you mean 'kite'"),
        ({"unicorn": "2"}, "expected a category id of the data set, one of 1, 4, 7, 90"),
        ({"unicorn": 2}, "expected a category id"),
    ],
)
def test_overrides_of_unknown_things_are_refused(
    overrides: dict[str, str | int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ClassMap.build(NAMES, CATEGORIES, overrides)


def test_a_long_list_is_cut_short_for_people() -> None:
    names = [f"thing {index}" for index in range(40)]
    assert "and 28 more" in ClassMap.build(names, CATEGORIES).summary()
