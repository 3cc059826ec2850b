"""Whatever is done to an annotation or a results file, it is read, or refused in a sentence.

Thousands of edits of a valid file, made anew from fixed seeds; a traceback is a failure. What is
read means the same to all readers.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from box_store import BoxStore, DatasetInfo, import_results, iter_results, load_coco
from box_store.coco.annotations import coco_table
from box_store.errors import TeachDetrError
from student_train.evaluation.coco_metrics import coco_metrics
from tests.box_store.edits import ANNOTATIONS, FUZZ, RESULTS, SEEDS, edits_of, written
from tests.tally import Tally

pytestmark = pytest.mark.faults
FILES = "edits of a COCO annotation file", "edits of a COCO results file"
OUTCOME = {True: "refused in a sentence", False: "read"}


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


@given(seed=SEEDS)
@settings(FUZZ, max_examples=120)
def test_annotation_files(folder: Path, seed: int, tally: Tally) -> None:
    for edits in edits_of(seed):
        tally.add(FILES[0], OUTCOME[check_annotations(folder, edits)])


def check_annotations(folder: Path, edits: Any) -> bool:
    """Whether the file is refused."""
    path = written(folder / "a.json", ANNOTATIONS, edits)
    if refused(lambda: load_coco(path)):
        assert refused(lambda: coco_metrics(path, []))
        return True
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
    return False


@given(seed=SEEDS)
@settings(FUZZ, max_examples=12)
def test_metrics_of_edited_annotations(folder: Path, seed: int, tally: Tally) -> None:
    for edits in edits_of(seed):
        path = written(folder / "m.json", ANNOTATIONS, edits)
        found: list[Any] = []
        is_refused = refused(lambda: found.append(coco_metrics(path, [])))  # noqa: B023
        tally.add(FILES[0], OUTCOME[is_refused])
        if not is_refused:
            n_truth = sum(row.n_truth for row in found[0].per_class)
            assert n_truth == int((~load_coco(path).table.iscrowd).sum())


@given(seed=SEEDS)
@settings(FUZZ, max_examples=80)
def test_results_files(folder: Path, seed: int, tally: Tally) -> None:
    for edits in edits_of(seed):
        path = written(folder / "r.json", RESULTS, edits)
        rows: list[Any] = []
        is_refused = refused(lambda: rows.extend(iter_results(path)))  # noqa: B023
        tally.add(FILES[1], OUTCOME[is_refused])
        if not is_refused:
            for row in rows:
                assert isinstance(row["image_id"], int)
                assert np.isfinite(np.asarray(row["bbox"], float)).all()
                assert 0 <= row["score"] <= 1


@pytest.fixture(scope="module")
def sound(folder: Path) -> tuple[Path, Path]:
    (folder / "sound.json").write_text(json.dumps(ANNOTATIONS))
    (folder / "found.json").write_text(json.dumps(RESULTS))
    return folder / "sound.json", folder / "found.json"


@given(seed=SEEDS)
@settings(FUZZ, max_examples=4)
def test_imports_of_edited_results(
    folder: Path, sound: tuple[Path, Path], seed: int, tally: Tally
) -> None:
    coco = load_coco(sound[0])
    for edits in edits_of(seed):
        place = folder / f"store{time.perf_counter_ns()}"
        store = BoxStore.open_or_create(place, coco.categories, DatasetInfo("a", "", 3))
        path = written(folder / "i.json", RESULTS, edits)
        is_refused = refused(
            lambda: import_results(store, "lab", [path], coco.images)  # noqa: B023
        )
        tally.add(FILES[1], OUTCOME[is_refused])
        if is_refused:
            assert not store.teachers
