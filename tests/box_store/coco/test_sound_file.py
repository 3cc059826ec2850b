"""The short way through a sound file ends where the long way does, or is not taken."""

import copy
import json
import random
from typing import Any

import numpy as np
import pytest

from box_store.coco import annotations as coco_annotations
from box_store.coco.annotations import CocoData
from box_store.coco.document import parse_document
from box_store.coco.sound_file import read_sound_rows
from box_store.errors import DataError
from tests.box_store.edits import ANNOTATIONS, ODD, places
from tests.box_store.forms.test_fuzz import damaged

pytest.importorskip("msgspec")

TABLE = (
    *("image_ids", "widths", "heights", "name_offsets", "names", "offsets"),
    *("boxes_xywh", "category_ids", "iscrowd", "areas", "unlabelled"),
)


def by_the_short_way(raw: bytes) -> CocoData | None:
    found = read_sound_rows(raw)
    return None if found is None else coco_annotations._checked("a.json", "", *found)


def by_the_long_way(raw: bytes) -> CocoData:
    document = parse_document(raw, "a.json")
    return coco_annotations._from_document(document, "a.json", "", named=True)


def assert_equal(one: CocoData, other: CocoData) -> None:
    for name in TABLE:
        mine, theirs = getattr(one.table, name), getattr(other.table, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    assert one.categories.to_json() == other.categories.to_json()
    assert (one.problems, one.examples) == (other.problems, other.examples)
    assert one.labelled == other.labelled


def document(**row: Any) -> dict[str, Any]:
    made = copy.deepcopy(ANNOTATIONS)
    made["annotations"][0] |= row
    return made


def test_a_sound_file_takes_it(shared: Any) -> None:
    path = shared / "data" / "coco-mini" / "annotations" / "instances_train2017.json"
    found = by_the_short_way(path.read_bytes())
    assert found is not None
    assert found.n_boxes > 500
    assert_equal(found, by_the_long_way(path.read_bytes()))


def test_more_rows_than_are_objects_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    images = [
        {"id": 7 * i % 101, "file_name": f"ü{i}", "width": 64, "height": 48}
        | {"labelled": [None, True, False][i % 3]}
        for i in range(50)
    ]
    rows = [
        {
            "id": 1000 - number,
            "image_id": draw.choice(images)["id"],
            "category_id": draw.choice([1, 2]),
            "bbox": [draw.uniform(-20, 60), draw.randint(-20, 40), draw.uniform(-1, 30), 9],
            "iscrowd": draw.choice([0, 1, True, False, None]),
            "area": draw.choice([None, 4, 2.5]),
        }
        for number in range(300)
    ]
    made = ANNOTATIONS | {"images": images, "annotations": rows}
    raw = json.dumps(made, ensure_ascii=False).encode()
    monkeypatch.setattr("box_store.coco.sound_file._AT_ONCE", 7)
    found = by_the_short_way(raw)
    assert found is not None
    assert found.problems
    assert_equal(found, by_the_long_way(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + json.dumps(ANNOTATIONS).encode(),
        json.dumps({**ANNOTATIONS, "annotations": []}).encode(),
        json.dumps({k: v for k, v in ANNOTATIONS.items() if k != "annotations"}).encode(),
        json.dumps({**ANNOTATIONS, "images": [], "annotations": []}).encode(),
        json.dumps(
            {
                **ANNOTATIONS,
                "images": [
                    {"id": i, "coco_url": f"http://x/val2017/{i}.jpg", "width": 9, "height": 9}
                    for i in (1, 2, 3)
                ],
            }
        ).encode(),
    ],
    ids=["marked", "empty", "to be labelled", "nothing", "LVIS"],
)
def test_unusual_and_sound(raw: bytes) -> None:
    found = by_the_short_way(raw)
    assert found is not None
    assert_equal(found, by_the_long_way(raw))


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(document(bbox=[1, 2, 3, 2**63 + 1])).encode(),
        json.dumps(document(id=2**63)).encode(),
        json.dumps(document(id=2)).encode(),
        json.dumps(document(image_id=9)).encode(),
        json.dumps(document(category_id=9)).encode(),
        json.dumps(document(iscrowd=2)).encode(),
        json.dumps(document(bbox=[1, 2, float("nan"), 4])).encode(),
        json.dumps(document(area="4")).encode(),
        json.dumps(document()).encode() + b"x",
        json.dumps(document()).encode()[:-1],
        json.dumps(document()).encode("utf-16"),
        json.dumps(document(note="?")).encode().replace(b"?", b"\xff"),
        json.dumps(document()).replace("im1.png", "\\ud83d").encode(),
    ],
)
def test_what_there_is_something_to_say_about_takes_the_long_way(raw: bytes) -> None:
    assert read_sound_rows(raw) is None


def test_edits_are_read_alike_or_left_alone() -> None:
    draw = random.Random(19)
    taken = 0
    for number in range(3000):
        made = copy.deepcopy(ANNOTATIONS)
        for _ in range(draw.randint(0, 2)):
            *path, last = draw.choice(places(made)[1:])
            at: Any = made
            for key in path:
                at = at[key]
            at[last] = copy.deepcopy(draw.choice(ODD))
            if not isinstance(made, dict):
                break
        raw = json.dumps(made).encode()
        if number % 3 == 0:
            raw = damaged(raw, draw)
        found = by_the_short_way(raw)
        if found is not None:
            taken += 1
            assert_equal(found, by_the_long_way(raw))
    assert taken > 500


def test_a_fault_is_told_as_by_the_long_way(maker: Any) -> None:
    path = maker.json_file("a.json", document(image_id=9))
    with pytest.raises(DataError, match="annotation 1 is of image 9, which is not listed"):
        coco_annotations.load_coco(path)
