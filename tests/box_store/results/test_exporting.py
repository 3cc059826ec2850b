import errno
import json
from typing import Any

import numpy as np
import pytest

from box_store.boxes import Boxes
from box_store.errors import DataError, StoreError, UnknownTeacher
from box_store.fuse import FusionConfig, fuse
from box_store.places import files
from box_store.results.exporting import export_results, iter_results
from box_store.results.importing import import_results
from box_store.store.reader import boxes_of, read_boxes


def filled(maker: Any) -> Any:
    store = maker.store()
    maker.fill(store, maker.record())
    return store


def test_an_export_is_what_pycocotools_reads(maker: Any) -> None:
    store = filled(maker)
    out = maker.folder / "out" / "one.json"
    assert export_results(store, "one", out) == 30
    entries = json.loads(out.read_text())
    assert len(entries) == 30
    boxes = boxes_of(store, "one", 17)
    assert boxes is not None
    own = [entry for entry in entries if entry["image_id"] == 17]
    np.testing.assert_allclose([e["score"] for e in own], boxes.scores, atol=1e-5)
    for entry, box in zip(own, boxes.boxes_xyxy.tolist(), strict=True):
        x, y, width, height = entry["bbox"]
        assert [x, y, x + width, y + height] == box


def test_an_export_imported_is_the_same_teacher(maker: Any) -> None:
    store = filled(maker)
    out = maker.folder / "one.json"
    export_results(store, "one", out)
    import_results(store, "copy", [out], maker.images(6), unit_size=4)
    assert read_boxes(store, "copy").to_pylist() == read_boxes(store, "one").to_pylist()


def test_a_teacher_without_boxes_exports_an_empty_array(maker: Any) -> None:
    store = maker.store()
    store.register(maker.record())
    out = maker.folder / "none.json"
    assert export_results(store, "one", out) == 0
    assert json.loads(out.read_text()) == []
    assert list(iter_results(out)) == []


def test_the_fusion_of_all_teachers_is_exported_without_a_name(maker: Any) -> None:
    store = filled(maker)
    rows = {i.id: maker.row(i, maker.boxes(i.id + 500)) for i in maker.images(6)}
    maker.fill(store, maker.record("two"), rows)
    out = maker.folder / "fused.json"
    config = FusionConfig(iou=0.5)
    export_results(store, None, out, fusion=config)
    seen = {name: boxes_of(store, name, 27) for name in ("one", "two")}
    expected = fuse({name: boxes for name, boxes in seen.items() if boxes is not None}, config)
    own = [entry for entry in json.loads(out.read_text()) if entry["image_id"] == 27]
    assert [entry["category_id"] for entry in own] == expected.class_ids.tolist()


def test_floor_and_limit_apply_to_an_export(maker: Any) -> None:
    store = filled(maker)
    out = maker.folder / "one.json"
    export_results(store, "one", out, score_floor=0.5, top_k=1)
    entries = json.loads(out.read_text())
    assert len({entry["image_id"] for entry in entries}) == len(entries) > 0
    assert min(entry["score"] for entry in entries) >= 0.5


def test_an_export_appears_whole_or_not_at_all(maker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(maker)
    out = maker.folder / "one.json"
    out.write_text("older")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        export_results(store, "one", out)
    assert out.read_text() == "older"
    assert [path.name for path in maker.folder.glob(".*")] == []


def test_an_unknown_teacher_is_not_exported(maker: Any) -> None:
    with pytest.raises(UnknownTeacher, match="Did you mean 'one'"):
        export_results(filled(maker), "onee", maker.folder / "x.json")


ENTRY = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "entry 1 is no detection but 5"),
        ({"image_id": 7}, "entry 1 lacks category_id and bbox and score"),
        (ENTRY | {"image_id": "seven"}, "entry 1 has the image_id 'seven', not a whole number"),
        (ENTRY | {"category_id": 1.5}, "entry 1 has the category_id 1.5"),
        (ENTRY | {"image_id": None}, "entry 1 has the image_id None"),
    ],
)
def test_an_entry_that_is_no_detection_is_named(maker: Any, entry: Any, message: str) -> None:
    path = maker.json_file("r.json", [ENTRY, entry])
    with pytest.raises(DataError, match=message):
        list(iter_results(path))


def test_ids_written_as_floats_are_ids(maker: Any) -> None:
    path = maker.json_file("r.json", [ENTRY | {"image_id": 7.0, "category_id": 1.0}])
    assert type(next(iter_results(path))["image_id"]) is int


def test_boxes_are_equal_after_rounding_twice(maker: Any) -> None:
    # 5 decimals of a score are finer than the 1/4096 that a store keeps
    store, record, image = maker.store(), maker.record(n_images=1), maker.images(1)[0]
    n = 4096
    scores = np.arange(n) / 4096
    boxes = Boxes(np.tile([0, 0, 9, 9], (n, 1)), scores, np.ones(n, int), 640, 480)
    maker.fill(store, record, {image.id: maker.row(image, boxes)})
    export_results(store, "one", maker.folder / "r.json")
    import_results(store, "two", [maker.folder / "r.json"], [image])
    assert read_boxes(store, "two").equals(read_boxes(store, "one"))
