import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_store.coco import annotations as coco_annotations
from box_store.coco.annotations import CocoData, load_coco
from box_store.errors import DataError

IMAGE = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}
PERSON = {"id": 1, "name": "person"}


def document(**changes: Any) -> dict[str, Any]:
    row = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 300}
    return {"images": [IMAGE], "categories": [PERSON], "annotations": [row]} | changes


def with_row(**changes: Any) -> dict[str, Any]:
    row = document()["annotations"][0] | changes
    return document(annotations=[{k: v for k, v in row.items() if v != "absent"}])


def test_a_sound_file_is_read_whole(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", document()))
    found = coco.annotations_of(7)
    assert coco.image_ids == (7,)
    assert coco.by_id[7].file_name == "a.jpg"
    assert found.boxes_xywh.tolist() == [[10, 10, 20, 20]]
    assert found.boxes_xyxy.tolist() == [[10, 10, 30, 30]]
    assert found.areas.tolist() == [300]
    assert not found.iscrowd.any()
    assert coco.problems == {}
    assert coco.n_boxes == 1


def test_an_image_without_annotations_has_an_empty_set(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", document(annotations=[])))
    assert len(coco.annotations_of(7)) == 0
    assert coco.annotations_of(7).boxes_xyxy.shape == (0, 4)


def test_an_empty_data_set_is_no_error(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", document(images=[], annotations=[])))
    assert coco.images == ()


def test_a_file_without_annotations_serves_for_labelling(maker: Any) -> None:
    path = maker.json_file("a.json", {"images": [IMAGE], "categories": [PERSON]})
    assert len(load_coco(path, labelled=False).images) == 1
    with pytest.raises(DataError, match="annotations missing"):
        load_coco(path)


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([10, 10, 0, 5], "no area"),
        ([10, 10, -3, 5], "no area"),
        ([200, 10, 5, 5], "outside its image"),
        ([10, -9, 5, 5], "outside its image"),
        ([10, 10, 5], "not a box"),
        ([10, 10, 5, float("nan")], "not a box"),
        ("10 10 5 5", "not a box"),
    ],
)
def test_boxes_that_are_none_are_dropped_and_counted(maker: Any, bbox: Any, kind: str) -> None:
    coco = load_coco(maker.json_file("a.json", with_row(bbox=bbox)))
    assert coco.n_boxes == 0
    assert coco.problems == {kind: 1}
    assert "annotation 1 (image 7)" in coco.examples[kind][0]


def test_boxes_that_stick_out_are_cut_and_counted(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", with_row(bbox=[-5, 40, 30, 30])))
    assert coco.annotations_of(7).boxes_xywh.tolist() == [[0, 40, 25, 10]]
    assert coco.problems == {"cut to its image": 1}


def test_a_hundredth_beyond_the_border_is_rounding(maker: Any) -> None:
    coco = load_coco(maker.json_file("a.json", with_row(bbox=[80, 10, 20.01, 10])))
    assert coco.problems == {}
    assert coco.annotations_of(7).boxes_xyxy[0, 2] == 100


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (with_row(image_id=8), "annotation 1 is of image 8, which is not listed"),
        (with_row(category_id=5), "unknown category id 5; the table has 1 ids between 1 and 1"),
        (with_row(bbox="absent"), "annotation 1 lacks bbox"),
        (with_row(id="absent"), "annotation number 0 lacks id"),
        (document(annotations=[document()["annotations"][0]] * 2), "annotation id 1 occurs twice"),
        (document(images=[IMAGE, IMAGE]), "image id 7 occurs twice: a.jpg and a.jpg"),
        (document(images=[IMAGE | {"id": "x"}]), "not a whole number"),
        (document(images=[IMAGE | {"width": 0}]), "at least 1 x 1 pixels, got 0 x 50"),
        (document(images=[IMAGE | {"file_name": ""}]), "no file name"),
        (document(images=[{"id": 7}]), "image 7 lacks file_name and width and height"),
        (document(images=["a.jpg"]), "image 0 is no object"),
        (document(categories=[PERSON, PERSON]), "category id 1 occurs twice"),
        (document(categories="person"), "categories missing"),
        ([], "looks like a results file"),
        ("text", "expected a COCO annotation file"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason(maker: Any, bad: Any, message: str) -> None:
    path = maker.json_file("bad.json", bad)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(path)
    assert "bad.json" in str(caught.value)


def test_a_missing_file_says_whether_its_folder_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder .* exists"):
        load_coco(tmp_path / "no.json")
    with pytest.raises(DataError, match="is missing too"):
        load_coco(tmp_path / "no" / "no.json")


@pytest.mark.parametrize("text", ["", "{", "\x00", '{"images": [}'])
def test_what_is_no_json_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not valid JSON"):
        load_coco(path)


def test_non_ascii_names_come_through(maker: Any) -> None:
    name = "Straße/猫 №1.jpg"
    coco = load_coco(maker.json_file("a.json", document(images=[IMAGE | {"file_name": name}])))
    assert coco.images[0].file_name == name


def test_real_coco_annotations(shared: Path) -> None:
    folder = shared / "data" / "coco-mini" / "annotations"
    coco = load_coco(folder / "instances_train2017.json")
    assert len(coco.images) == 128
    assert len(coco.categories) == 80
    assert coco.categories.ids[-1] == 90
    assert not coco.problems
    for image in coco.images:
        xyxy = coco.annotations_of(image.id).boxes_xyxy
        assert (xyxy[:, [0, 2]] <= image.width).all()
        assert np.isfinite(xyxy).all()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are worth a table too."""
    monkeypatch.setattr(coco_annotations, "_CACHED_FROM_BYTES", 0)


def three_images() -> dict[str, Any]:
    images = [IMAGE | {"id": key, "file_name": f"é{key}.jpg"} for key in (9, 7, 8)]
    rows = [
        {"id": 1, "image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [5, 6, 7, 8], "area": 50},
        {"id": 3, "image_id": 8, "category_id": 1, "bbox": [0, 0, 100, 60]},
    ]
    return document(images=images, annotations=rows)


def contents(coco: CocoData) -> tuple[Any, ...]:
    rows = {key: coco.annotations_of(key) for key in (7, 8, 9, 10)}
    return (
        coco.images,
        coco.image_ids,
        coco.categories,
        coco.problems,
        coco.examples,
        coco.sha256,
        sorted(coco.annotations),
        {key: (a.boxes_xywh.tolist(), a.iscrowd.tolist()) for key, a in rows.items()},
        {key: (a.areas.tolist(), a.category_ids.tolist()) for key, a in rows.items()},
    )


@pytest.mark.usefixtures("eager")
def test_the_table_of_a_file_holds_all_of_it(maker: Any, tmp_path: Path) -> None:
    path = maker.json_file("a.json", three_images())
    parsed = load_coco(path)
    assert contents(parsed)[0][0].file_name == "é9.jpg"
    assert parsed.annotations_of(8).boxes_xywh.tolist() == [[1, 2, 3, 4], [0, 0, 100, 50]]
    first, second = (load_coco(path, cache=tmp_path / "cache") for _ in range(2))
    assert contents(first) == contents(second) == contents(parsed)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    # other content, another table
    other = maker.json_file("a.json", document())
    assert load_coco(other, cache=tmp_path / "cache").image_ids == (7,)


@pytest.mark.usefixtures("eager")
def test_a_table_is_mapped_not_copied(maker: Any, tmp_path: Path) -> None:
    coco = load_coco(maker.json_file("a.json", three_images()), cache=tmp_path)
    table = coco.table
    assert table.path is not None
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if isinstance(value, np.ndarray) and value.size:
            assert not value.flags.owndata, field.name
            assert not value.flags.writeable, field.name
    # another process gets the path alone
    copied = pickle.dumps(table)
    assert len(copied) < 400 + len(str(table.path))
    assert pickle.loads(copied).boxes_xywh.tolist() == table.boxes_xywh.tolist()


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("damage", [b"", b"nothing of the kind", None])
def test_a_damaged_table_is_made_anew(maker: Any, tmp_path: Path, damage: bytes | None) -> None:
    path = maker.json_file("a.json", three_images())
    wanted = contents(load_coco(path, cache=tmp_path / "cache"))
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-300] if damage is None else damage)
    assert contents(load_coco(path, cache=tmp_path / "cache")) == wanted
    assert contents(load_coco(path, cache=tmp_path / "cache")) == wanted


@pytest.mark.usefixtures("eager")
def test_a_table_that_cannot_be_written_is_done_without(maker: Any, tmp_path: Path) -> None:
    path = maker.json_file("a.json", three_images())
    (tmp_path / "file").write_text("no folder")
    assert contents(load_coco(path, cache=tmp_path / "file" / "cache")) == contents(load_coco(path))


def test_small_files_leave_no_table(maker: Any, tmp_path: Path) -> None:
    load_coco(maker.json_file("a.json", three_images()), cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def many(bbox: Any) -> dict[str, Any]:
    rows = [{"id": k, "image_id": 7, "category_id": 1, "bbox": bbox(k)} for k in range(20)]
    return document(annotations=rows)


def test_corners_and_parts_are_seen_for_what_they_are(maker: Any) -> None:
    corners = load_coco(maker.json_file("c.json", many(lambda k: [20 + 3 * k, 20, 30 + 3 * k, 45])))
    assert corners.problems["boxes look like two corners, not like a corner and an extent"] == 1
    parts = load_coco(maker.json_file("p.json", many(lambda k: [0.01 * k, 0.2, 0.3, 0.4])))
    assert parts.problems == {"boxes look like parts of 1, not like pixels": 1}
    sound = load_coco(maker.json_file("s.json", many(lambda k: [2 * k, 5, 30, 20])))
    assert not sound.problems
