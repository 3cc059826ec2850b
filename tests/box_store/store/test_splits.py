"""Splits that number their images alike share a store, and nothing joins one with another."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from box_store import (
    Boxes,
    BoxStore,
    DatasetInfo,
    ImageInfo,
    ImageRow,
    Selection,
    SelectionSpec,
    TeacherRecord,
    boxes_of,
    export_results,
    image_ids_sha256,
    import_results,
    known_images,
    read_boxes,
    read_images,
    select,
)
from box_store.calibration.judging import judge
from box_store.check import check_store
from box_store.coco.annotations import CocoData, load_coco
from box_store.errors import DataError
from box_store.identity import check_same, of_split, seen_by
from box_store.query import open_store, run_sql, select_sql
from box_store.selection.images import check_selection
from box_store.store import splits

# as the numbers of frames: nothing but the split tells them apart
BOX = {"train": [4, 6, 28, 26], "valid": [34, 20, 58, 40]}
N_IMAGES = {"train": 5, "valid": 3}


def annotations(folder: Path, split: str, name: str = "frame_{}.png") -> CocoData:
    x1, y1, x2, y2 = BOX[split]
    ids = range(N_IMAGES[split])
    document = {
        "images": [{"id": i, "file_name": name.format(i), "width": 64, "height": 48} for i in ids],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for i in ids
        ],
    }
    path = folder / f"{split}.json"
    path.write_text(json.dumps(document))
    return replace(load_coco(path), split=split)


def rows_of(coco: CocoData, score: float = 0.5) -> list[ImageRow]:
    found = []
    for image in coco.images:
        corners = np.array([BOX[image.split]], np.float32)
        boxes = Boxes(corners, np.array([score]), np.array([1]), image.width, image.height)
        found.append(ImageRow(image.id, image.file_name, 64, 48, boxes, split=image.split))
    return found


def enter(store: BoxStore, name: str, rows: Sequence[ImageRow], unit_size: int = 4) -> None:
    record = TeacherRecord(
        name=name,
        adapter="onnx",
        model="m.onnx",
        weights_sha256="0" * 64,
        licence="MIT",
        class_map={"person": 1},
        options={},
        image_ids_sha256=image_ids_sha256(
            [row.image_id for row in rows], [row.split for row in rows]
        ),
        unit_size=unit_size,
        n_images=len(rows),
        n_units=-(-len(rows) // unit_size),
    )
    store.register(record)
    for unit, start in enumerate(range(0, len(rows), unit_size)):
        store.write_unit(name, unit, rows[start : start + unit_size])


@pytest.fixture(name="both")
def _both(tmp_path: Path) -> dict[str, CocoData]:
    return {split: annotations(tmp_path, split) for split in N_IMAGES}


@pytest.fixture(name="store")
def _store(tmp_path: Path, both: dict[str, CocoData]) -> BoxStore:
    """`one` saw both splits, `two` the training split only."""
    coco = both["train"]
    info = DatasetInfo("train+valid", coco.sha256, 8)
    store = BoxStore.create(tmp_path / "store", coco.categories, info)
    enter(store, "one", [*rows_of(coco), *rows_of(both["valid"])])
    enter(store, "two", rows_of(coco, 0.25))
    return store


def as_format_1(store: BoxStore) -> BoxStore:
    """The store as versions wrote it that knew no splits."""
    root = Path(str(store.path))
    for images in (root / "images").glob("*/*.parquet"):
        boxes = root / "boxes" / images.relative_to(root / "images")
        rewrite(boxes)
        rewrite(images, boxes_sha256=hashlib.sha256(boxes.read_bytes()).hexdigest())
    for path in (root / "store.json", *(root / "teachers").glob("*.json")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": "1.0"}))
    return BoxStore.open(root)


def rewrite(path: Path, **changes: str) -> None:
    table = pq.ParquetFile(path).read().drop(["split"])
    footer = json.loads(table.schema.metadata[b"teach_detr"])
    metadata = json.dumps(footer | {"format_version": "1.0"} | changes).encode()
    pq.write_table(table.replace_schema_metadata({b"teach_detr": metadata}), path)


def test_both_images_of_an_id_are_kept(store: BoxStore) -> None:
    seen = read_images(store, "one", ["split", "image_id"]).to_pylist()
    keys = [(row["split"], row["image_id"]) for row in seen]
    assert sorted(keys) == [(split, i) for split, n in N_IMAGES.items() for i in range(n)]
    # a unit with both images of id 0 keeps their boxes apart
    for split in N_IMAGES:
        boxes = boxes_of(store, "one", 0, split)
        assert boxes is not None
        assert boxes.boxes_xyxy.tolist() == [BOX[split]]
    with pytest.raises(DataError, match=r"image 0 is frame_0.png in train and frame_0.png in val"):
        boxes_of(store, "one", 0)
    assert read_boxes(store, "one")["split"].to_pylist().count("valid") == 3
    assert check_store(store.path).problems == []


@pytest.mark.parametrize("split", ["train", "valid"])
def test_annotations_see_their_own_split(
    store: BoxStore, both: dict[str, CocoData], split: str
) -> None:
    seen = seen_by(store, both[split])
    assert [image.key for image in known_images(seen)] == [
        (split, i) for i in range(N_IMAGES[split])
    ]
    chosen = Selection.open(select(seen, SelectionSpec()))
    assert chosen.boxes("one", 1).boxes_xyxy.tolist() == [BOX[split]]  # type: ignore[union-attr]
    assert (chosen.boxes("two", 1) is None) == (split == "valid")
    judged = judge(seen, "one", both[split])
    assert len(judged.image_ids) == N_IMAGES[split]
    assert judged.hits.all()
    check_selection(chosen, both[split])
    other = both["valid" if split == "train" else "train"]
    with pytest.raises(DataError, match=r"of the split .*select again"):
        check_selection(chosen, other)


def test_a_teacher_of_another_split_only_is_not_taken_for_one_of_this(
    store: BoxStore, both: dict[str, CocoData]
) -> None:
    seen = seen_by(store, both["valid"], ["two"])
    assert Selection.open(select(seen, SelectionSpec())).counts()["two"] == (0, 0)


def test_whoever_takes_an_id_for_one_image_is_refused(store: BoxStore, tmp_path: Path) -> None:
    refused = r"image ids collide: image 0 is frame_0.png in train and .* in valid.*--split"
    for work in (
        lambda: known_images(store),
        lambda: select(store, SelectionSpec()),
        lambda: export_results(store, "one", tmp_path / "out.json"),
        lambda: select_sql(store.path, "FROM boxes", tmp_path / "some.arrow"),
    ):
        with pytest.raises(DataError, match=refused):
            work()


def test_a_split_that_is_not_there_is_named(store: BoxStore) -> None:
    with pytest.raises(DataError, match=r"no split 'val': it has train, valid. Did you mean 'vali"):
        of_split(store, "val")


def test_annotations_that_may_be_of_either_are_refused(
    store: BoxStore, both: dict[str, CocoData]
) -> None:
    with pytest.raises(DataError, match=r"which is meant is not said.*--split NAME"):
        seen_by(store, replace(both["valid"], split=""))
    with pytest.raises(DataError, match=r"which is meant is not said"):
        seen_by(store, replace(both["valid"], split="test"))


def test_file_names_tell_what_split_annotations_without_a_name_are_of(tmp_path: Path) -> None:
    train, valid = (annotations(tmp_path, split, f"{split}_{{}}.png") for split in N_IMAGES)
    info = DatasetInfo("both", "0" * 64, 8)
    store = BoxStore.create(tmp_path / "store", train.categories, info)
    enter(store, "one", [*rows_of(train), *rows_of(valid)])
    assert seen_by(store, replace(valid, split="")).shown == {"valid"}
    assert seen_by(store, replace(train, split="mine")).shown == {"train"}
    other = annotations(tmp_path, "valid", "other_{}.png")
    with pytest.raises(DataError, match=r"holds boxes of other images"):
        seen_by(store, replace(other, split="valid"))
    with pytest.raises(DataError, match=r"holds boxes of other images"):
        seen_by(store, replace(other, split=""))


def test_sql_over_both_tells_them_apart(store: BoxStore, both: dict[str, CocoData]) -> None:
    connection = open_store(store.path)
    counted = run_sql(connection, "SELECT split, count(*) n FROM boxes GROUP BY ALL ORDER BY 1")
    assert counted.to_pylist() == [{"split": "train", "n": 10}, {"split": "valid", "n": 3}]
    pairs = run_sql(
        connection,
        "SELECT count(*) n FROM boxes a JOIN boxes b USING (split, image_id) "
        "WHERE a.teacher < b.teacher",
    )
    assert pairs.to_pylist() == [{"n": 5}]
    with pytest.raises(DataError, match=r"by image_id, and image 0 is frame_0.png in train and"):
        run_sql(connection, "SELECT image_id, count(*) FROM boxes GROUP BY ALL")
    # with one split in view, queries are as they always were
    for split, n in N_IMAGES.items():
        alone = open_store(store.path, split=split)
        (row,) = run_sql(alone, "SELECT count(DISTINCT image_id) n FROM boxes").to_pylist()
        assert row["n"] == n


def test_sql_with_annotations_shows_their_split(store: BoxStore, tmp_path: Path) -> None:
    for split, n in N_IMAGES.items():
        connection = open_store(store.path, tmp_path / f"{split}.json")
        hits = run_sql(
            connection,
            "SELECT teacher, count(*) n FROM matched(NULL, 0.9, 0) WHERE outcome = 'hit' "
            "GROUP BY ALL ORDER BY 1",
        ).to_pylist()
        assert hits == [{"teacher": t, "n": n} for t in ("one", "two")[: 1 + (split == "train")]]
        joined = run_sql(
            connection,
            "SELECT count(*) n FROM boxes b JOIN truth t USING (image_id, category_id) "
            "WHERE iou(b.x1, b.y1, b.x2, b.y2, t.x1, t.y1, t.x2, t.y2) < 0.9",
        )
        assert joined.to_pylist() == [{"n": 0}]
        assert run_sql(connection, "SELECT DISTINCT split FROM truth").to_pylist() == [
            {"split": split}
        ]


def test_a_store_of_the_first_format_is_read_and_filled_up(
    tmp_path: Path, both: dict[str, CocoData]
) -> None:
    train = both["train"]
    info = DatasetInfo("train", "0" * 64, 5)
    store = BoxStore.create(tmp_path / "store", train.categories, info)
    enter(store, "one", rows_of(train))
    store = as_format_1(store)
    assert [image.split for image in known_images(store)] == [""] * 5
    chosen = select(store, SelectionSpec(), tmp_path / "cache")
    assert Selection.open(chosen).boxes("one", 4) is not None
    # the same split by another teacher: the same images
    enter(store, "two", rows_of(train, 0.25))
    assert seen_by(store, train) == store
    connection = open_store(store.path, tmp_path / "train.json")
    assert run_sql(connection, "SELECT DISTINCT split FROM boxes").to_pylist() == [
        {"split": "train"}
    ]
    agreed = run_sql(
        connection,
        "SELECT count(*) n FROM boxes a JOIN boxes b USING (split, image_id) "
        "WHERE a.teacher < b.teacher",
    )
    assert agreed.to_pylist() == [{"n": 5}]
    assert check_store(store.path).problems == []


def test_a_split_may_join_another_that_names_none(tmp_path: Path) -> None:
    train = annotations(tmp_path, "train", "a_{}.png")
    valid = annotations(tmp_path, "valid", "b_{}.png")
    info = DatasetInfo("train", "0" * 64, 5)
    store = BoxStore.create(tmp_path / "store", train.categories, info)
    enter(store, "one", rows_of(train))
    store = as_format_1(store)
    check_same(store, valid.images, "valid")
    enter(store, "two", rows_of(valid))
    assert seen_by(store, valid).shown == {"valid"}
    assert seen_by(store, train).shown == {""}
    chosen = Selection.open(select(seen_by(store, train), SelectionSpec()))
    assert chosen.counts() == {"one": (5, 5), "two": (0, 0)}


def test_results_are_imported_by_split(
    store: BoxStore, both: dict[str, CocoData], tmp_path: Path
) -> None:
    results = tmp_path / "results.json"
    rows = [{"image_id": i, "category_id": 1, "bbox": [34, 20, 24, 20], "score": 1} for i in (0, 2)]
    results.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="image ids collide"):
        import_results(store, "lab", [results])
    import_results(of_split(store, "valid"), "lab", [results])
    assert {image.split for image in known_images(seen_by(store, both["valid"]))} == {"valid"}
    assert boxes_of(store, "lab", 2, "valid") is not None
    assert boxes_of(store, "lab", 2, "train") is None


def test_the_same_image_in_two_splits_has_both_names() -> None:
    name = splits.joined_name(["train", "trainval"])
    assert splits.are_one(name, "train")
    assert splits.are_one("trainval", name)
    assert not splits.are_one(name, "val")
    assert not splits.are_one("", "train")
    images: list[Any] = [ImageInfo(1, "a.png", 4, 4, each) for each in (name, "train", "")]
    assert splits.collision(images) is None
    assert splits.labels_of(images) == {1: name}
    assert splits.collision([*images, ImageInfo(1, "a.png", 4, 4, "val")]) is not None


def test_an_image_list_without_collisions_keeps_its_hash() -> None:
    plain = image_ids_sha256([1, 2, 3])
    assert image_ids_sha256([1, 2, 3], ["a", "a", "b"]) == plain
    colliding = image_ids_sha256([1, 2, 1], ["a", "a", "b"])
    assert colliding != image_ids_sha256([1, 2, 1], ["a", "a", "c"])
