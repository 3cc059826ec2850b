"""Whatever is done to an annotation or a results file, it is read, or refused in a sentence.

Thousands of edits of a valid file, made anew from fixed seeds; a traceback is a failure. What is
read means the same to all readers.
"""

import copy
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from box_store import BoxStore, DatasetInfo, import_results, iter_results, load_coco
from box_store.coco.annotations import coco_table
from box_store.errors import TeachDetrError
from student_train.evaluation.coco_metrics import coco_metrics

ODD = [
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 0.5, 1.0),
    *(1e-320, 1e308, float("nan"), float("inf"), -float("inf"), "", "0", "1", "1.0", "x", "\0"),
    *(chr(0xD83D), "ü" * 300, "../../etc/passwd", "a\\b.png", "/a.png", [], [[]], [0, 0, 1, 1]),
    *([1, 2, 3], {}, {"id": 1}, [None] * 4, [1e308] * 4, ["1", "2", "3", "4"]),
    *([float("nan")] * 4, [0, 0, 1e-320, 1e-320]),
]

ANNOTATIONS: dict[str, Any] = {
    "images": [{"id": i, "file_name": f"im{i}.png", "width": 64, "height": 48} for i in (1, 2, 3)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog", "supercategory": "pet"}],
    "annotations": [
        {"id": k, "image_id": i, "category_id": c, "bbox": [5, i, 18.5, 16], "area": 288}
        | {"iscrowd": k == 5, "segmentation": [[1, 2, 3, 4, 5, 6]]}
        for k, (i, c) in enumerate([(1, 1), (1, 2), (2, 1), (3, 2), (3, 1)], 1)
    ],
}
RESULTS: list[Any] = [
    {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"]}
    | {"score": 0.9}
    for row in ANNOTATIONS["annotations"]
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document."""
    keys = (
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )
    return [path, *(found for key in keys for found in places(value[key], (*path, key)))]


def edited(document: Any, steps: list[tuple[int, int, str]]) -> Any:
    """A copy with values replaced, dropped, doubled or put elsewhere."""
    document = copy.deepcopy(document)
    for where, what, kind in steps:
        paths = places(document)
        path = paths[where % len(paths)]
        value = copy.deepcopy(ODD[what % len(ODD)])
        if not path:
            document = value if kind == "replace" and where % 7 == 0 else document
            continue
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        key = path[-1]
        if kind == "replace":
            holder[key] = value
        elif kind == "drop":
            del holder[key]
        elif kind == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == "move":
            other = paths[what % len(paths)]
            if other and len(other) < len(path):
                continue
            holder[key] = copy.deepcopy(holder[key])
        if not isinstance(document, dict | list):
            break
    return document


def broken(raw: bytes, cuts: list[tuple[int, int, str]]) -> bytes:
    """The same in bytes: cut off, flipped, doubled, in other encodings."""
    for where, what, kind in cuts:
        at = where % (len(raw) + 1)
        if kind == "replace":
            raw = raw[:at] + bytes([what % 256]) + raw[at + 1 :]
        elif kind == "drop":
            raw = raw[:at]
        elif kind == "double":
            raw = raw[:at] + raw[max(0, at - 9) :]
        else:
            codec = ["utf-16", "utf-32", "utf-8-sig", "utf-16-be"][what % 4]
            raw = raw.decode("latin-1").encode(codec)
    return raw


# hypothesis draws seeds; the edits follow from them, as drawing each would take most of the time
SEEDS = st.integers(0, 2**32 - 1)
EDITS_A_SEED = 25
KINDS = ("replace", "drop", "double", "move")


def edits_of(seed: int) -> Iterator[tuple[list[Any], list[Any], bool]]:
    """Steps in the document, steps in its bytes, and whether the latter are made."""
    draw = random.Random(seed)

    def step() -> tuple[int, int, str]:
        return draw.randrange(400), draw.randrange(400), draw.choice(KINDS)

    for _ in range(EDITS_A_SEED):
        steps = [step() for _ in range(draw.randint(1, 4))]
        yield steps, [step() for _ in range(draw.randint(0, 2))], draw.random() < 0.3


FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def written(path: Path, document: Any, edits: Any) -> Path:
    steps, cuts, in_bytes = edits
    raw = json.dumps(edited(document, steps)).encode()
    path.write_bytes(broken(raw, cuts) if in_bytes else raw)
    return path


def refused(call: Callable[[], Any]) -> bool:
    """Whether the call ends in a sentence; anything but that and success fails the test."""
    try:
        call()
    except TeachDetrError as error:
        return bool(str(error).strip())
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(SEEDS)
@settings(FUZZ, max_examples=120)
def test_annotation_files(folder: Path, seed: int) -> None:
    for edits in edits_of(seed):
        check_annotations(folder, edits)


def check_annotations(folder: Path, edits: Any) -> None:
    path = written(folder / "a.json", ANNOTATIONS, edits)
    if refused(lambda: load_coco(path)):
        assert refused(lambda: coco_metrics(path, []))
        return
    coco = load_coco(path)
    table = coco_table(coco)
    assert len(table["annotations"]) == coco.n_boxes
    boxes, sides = coco.table.boxes_xywh, np.diff(coco.table.offsets)
    assert np.isfinite(boxes).all()
    assert (boxes[:, 2:] > 0).all()
    ends = boxes[:, :2].astype(float) + boxes[:, 2:]
    assert (ends <= np.stack([coco.table.widths, coco.table.heights], 1).repeat(sides, 0)).all()
    # what was read is read again as the same, with nothing left to drop or cut
    (folder / "again.json").write_text(json.dumps(table))
    again = load_coco(folder / "again.json")
    assert not again.problems
    assert (again.table.boxes_xywh == boxes).all()
    assert (again.table.areas == coco.table.areas).all()


@given(SEEDS)
@settings(FUZZ, max_examples=12)
def test_metrics_of_edited_annotations(folder: Path, seed: int) -> None:
    for edits in edits_of(seed):
        path = written(folder / "m.json", ANNOTATIONS, edits)
        found: list[Any] = []
        if not refused(lambda: found.append(coco_metrics(path, []))):  # noqa: B023
            n_truth = sum(row.n_truth for row in found[0].per_class)
            assert n_truth == int((~load_coco(path).table.iscrowd).sum())


@given(SEEDS)
@settings(FUZZ, max_examples=80)
def test_results_files(folder: Path, seed: int) -> None:
    for edits in edits_of(seed):
        path = written(folder / "r.json", RESULTS, edits)
        rows: list[Any] = []
        if not refused(lambda: rows.extend(iter_results(path))):  # noqa: B023
            for row in rows:
                assert isinstance(row["image_id"], int)
                assert np.isfinite(np.asarray(row["bbox"], float)).all()
                assert 0 <= row["score"] <= 1


@pytest.fixture(scope="module")
def sound(folder: Path) -> tuple[Path, Path]:
    (folder / "sound.json").write_text(json.dumps(ANNOTATIONS))
    (folder / "found.json").write_text(json.dumps(RESULTS))
    return folder / "sound.json", folder / "found.json"


@given(SEEDS)
@settings(FUZZ, max_examples=4)
def test_imports_of_edited_results(folder: Path, sound: tuple[Path, Path], seed: int) -> None:
    coco = load_coco(sound[0])
    for edits in edits_of(seed):
        place = folder / f"store{time.perf_counter_ns()}"
        store = BoxStore.open_or_create(place, coco.categories, DatasetInfo("a", "", 3))
        path = written(folder / "i.json", RESULTS, edits)
        if refused(lambda: import_results(store, "lab", [path], coco.images)):  # noqa: B023
            assert not store.teachers
