"""Annotations mean the same to training, to the metrics and to SQL, whatever is odd about them.

Most cases are edits of one small file, with detections that equal its boxes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from box_store import BoxStore, DatasetInfo, import_results, load_coco
from box_store.errors import DataError
from student_train.evaluation.coco_metrics import BACKENDS, coco_metrics

Document = dict[str, Any]
BOXES = [(i, c, [5 + 20 * c, 5 + i, 18, 16]) for i in (1, 2, 3, 4) for c in (1, 2)]
RESULTS = [{"image_id": i, "category_id": c, "bbox": b, "score": 0.9} for i, c, b in BOXES]


def document() -> Document:
    return {
        "images": [
            {"id": i, "file_name": f"im{i}.png", "width": 64, "height": 48} for i in (1, 2, 3, 4)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": b, "area": 288, "iscrowd": 0}
            for k, (i, c, b) in enumerate(BOXES, 1)
        ],
    }


def every(field: str, value: Any, rows: str = "annotations") -> Callable[[Document], None]:
    def edit(changed: Document) -> None:
        for row in changed[rows]:
            row[field] = value(row[field]) if callable(value) else value

    return edit


def also(**row: Any) -> Callable[[Document], None]:
    base = {"id": 99, "image_id": 1, "category_id": 1}
    return lambda changed: changed["annotations"].append(base | row)


def drop(field: str) -> Callable[[Document], None]:
    def edit(changed: Document) -> None:
        for row in changed["annotations"]:
            del row[field]

    return edit


def whole_as_floats(changed: Document) -> None:
    for rows, fields in (
        ("images", ("id", "width", "height")),
        ("categories", ("id",)),
        ("annotations", ("id", "image_id", "category_id", "iscrowd")),
    ):
        for row in changed[rows]:
            for field in fields:
                row[field] = float(row[field])


HARMLESS = {
    "nothing": lambda changed: None,
    "ids from 0": every("id", lambda key: key - 1),
    "ids below 0": every("id", lambda key: key - 20),
    "ids of 62 bits": every("id", lambda key: key + 2**62),
    "areas null": every("area", None),
    "areas as text": every("area", "288.0"),
    "areas not finite": every("area", float("nan")),
    "no areas": drop("area"),
    "crowds null": every("iscrowd", None),
    "crowds as text": every("iscrowd", "0"),
    "crowds as truth values": every("iscrowd", False),
    "no crowds": drop("iscrowd"),
    "whole numbers as floats": whole_as_floats,
    "outlines of any kind": every("iscrowd", 0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HARMLESS)
def test_a_perfect_detector_is_perfect(maker: Any, name: str, backend: str) -> None:
    if backend != "pycocotools":
        pytest.importorskip("faster_coco_eval")
    changed = document()
    HARMLESS[name](changed)
    path = maker.json_file("a.json", changed)
    metrics = coco_metrics(path, RESULTS, backend=backend)
    assert pytest.approx(1) == metrics.AP
    assert sum(row.n_truth for row in metrics.per_class) == 8
    coco = load_coco(path)
    assert (coco.n_boxes, int(coco.table.iscrowd.sum()), coco.problems) == (8, 0, {})


NO_BOXES = {
    "null": (None, "not a box"),
    "empty": ([], "not a box"),
    "five numbers": ([1, 2, 3, 4, 5], "not a box"),
    "text": (["1", "2", "3", "4"], "not a box"),
    "NaN": ([float("nan"), 6, 18, 16], "not a box"),
    "infinite": ([5, 6, float("inf"), 16], "not a box"),
    "too large for a float": ([5, 6, 10**400, 16], "not a box"),
    "no width": ([5, 6, 0, 16], "no area"),
    "outside": ([500, 6, 5, 5], "outside its image"),
}


@pytest.mark.parametrize("area", [{}, {"area": 0}])
@pytest.mark.parametrize("name", NO_BOXES)
def test_what_is_no_box_is_dropped_for_all(
    maker: Any, tmp_path: Path, name: str, area: dict[str, int]
) -> None:
    box, kind = NO_BOXES[name]
    changed = document()
    also(bbox=box, **area)(changed)
    path = maker.json_file("a.json", changed)
    coco = load_coco(path)
    assert (coco.n_boxes, coco.problems) == (8, {kind: 1})
    assert "annotation 99 (image 1)" in coco.examples[kind][0]
    metrics = coco_metrics(path, RESULTS)
    assert pytest.approx(1) == metrics.AP
    assert sum(row.n_truth for row in metrics.per_class) == 8
    assert in_sql(maker, path, tmp_path) == 8


def in_sql(maker: Any, annotations: Path, tmp_path: Path) -> int:
    """Rows of the table `truth`."""
    pytest.importorskip("duckdb")
    from box_store.query import open_store, run_sql

    coco = load_coco(annotations)
    info = DatasetInfo("a", coco.sha256, len(coco.images))
    store = BoxStore.open_or_create(tmp_path / "sql", coco.categories, info)
    import_results(store, "lab", [maker.json_file("r.json", RESULTS)], coco.images)
    connection = open_store(store.path, annotations)
    try:
        return run_sql(connection, "SELECT count(*) n FROM truth")["n"].to_pylist()[0]
    finally:
        connection.close()


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_every_encoding_that_json_allows(tmp_path: Path, encoding: str) -> None:
    changed = document()
    changed["categories"][0]["name"] = "Löwe 🦁"
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(changed, ensure_ascii=False).encode(encoding))
    assert load_coco(path).categories.names[0] == "Löwe 🦁"
    assert pytest.approx(1) == coco_metrics(path, RESULTS).AP


def test_a_packed_file(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document()).encode()))
    assert pytest.approx(1) == coco_metrics(path, RESULTS).AP
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="packed by gzip and damaged"):
        load_coco(path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            every("id", 2**63 + 1, "images"),
            "image 0 has the id 9223372036854775809, which does not",
        ),
        (every("id", lambda key: key + 2**63), "annotation number 0 has the id .* fit 64 bits"),
        (every("id", 1.5, "images"), r"image 0 has the id 1\.5, not a whole number"),
        (every("width", 64.5, "images"), r"at least 1 x 1 pixels, got 64\.5 x 48"),
        (every("width", 2**40, "images"), "at least 1 x 1 pixels"),
        (every("width", True, "images"), "at least 1 x 1 pixels, got True x 48"),
        (every("iscrowd", "maybe"), "annotation 1 has iscrowd 'maybe', expected 0 or 1"),
        (every("iscrowd", 2), "annotation 1 has iscrowd 2"),
        (every("category_id", "1"), "unknown category id '1'"),
        (every("image_id", [1]), r"of image \[1\], which is not listed"),
        (every("id", 2**31, "categories"), "from 0 to 2147483647, got 2147483648"),
        (every("file_name", 5, "images"), "has no file name"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_row_and_field(
    maker: Any, edit: Callable[[Document], None], words: str
) -> None:
    changed = document()
    edit(changed)
    path = maker.json_file("a.json", changed)
    with pytest.raises(DataError, match=words):
        load_coco(path)
    with pytest.raises(DataError, match=words):
        coco_metrics(path, RESULTS)


def test_crowds_stay_crowds(maker: Any) -> None:
    changed = document()
    for row in changed["annotations"][:4]:
        row["iscrowd"] = "1"
    path = maker.json_file("a.json", changed)
    assert int(load_coco(path).table.iscrowd.sum()) == 4
    metrics = coco_metrics(path, RESULTS)
    assert sum(row.n_truth for row in metrics.per_class) == 4
    assert pytest.approx(1) == metrics.AP
