import json
import mmap
from pathlib import Path

import numpy as np
import pytest

from box_store import load_coco
from box_store.measure.__main__ import main
from box_store.measure.figures import Figure, table
from box_store.measure.processes import descendants, forget_peak, peak_bytes, resident_bytes
from box_store.measure.synthetic import UNIT, Law, detections, scenes, write_annotations
from box_store.query import example_queries


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("measure") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        # main sets it
        patch.setenv("TEACH_DETR_CACHE", str(out.parent))
        assert main(["--images", "4", "--boxes", "20", "--teachers", "2", "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_every_figure_is_there(document: dict) -> None:
    names = {figure["name"] for figure in document["figures"]}
    assert names >= set(example_queries())
    peers = {figure["peer"] for figure in document["figures"]}
    assert peers >= {"COCO JSON", "pyarrow's defaults", "SQL over the store", "SQL over a database"}
    assert document["machine"]["commit"]


def test_a_ratio_says_how_many_times_better_the_store_is(document: dict) -> None:
    compared = [figure for figure in document["figures"] if figure["ratio"] is not None]
    assert len(compared) >= 11
    for figure in compared:
        ours, theirs = figure["value"], figure["peer_value"]
        better = ours / theirs if "M/" in figure["unit"] else theirs / ours
        assert figure["ratio"] == pytest.approx(better)


def test_a_table_has_a_title_for_each_group() -> None:
    figures = [
        Figure("sizes", "store", 10.44, "B", "JSON", 94.5, 9.05, 12.3),
        Figure("queries", "coverage", 2_000_000, "s"),
    ]
    assert table(figures).splitlines() == [
        "",
        "sizes",
        "  store     10.4 B       JSON 94.5  9.05 x  12 MiB",
        "",
        "queries",
        "  coverage  2,000,000 s",
    ]


def test_drawn_boxes_are_as_many_as_asked_and_the_same_each_time() -> None:
    law = Law(UNIT + 100, boxes_per_image=30)
    rows = detections(law, 0, 1)
    assert [row.image_id for row in rows] == list(range(1, UNIT + 1))
    n_boxes = [len(row.boxes) for row in rows if row.boxes is not None]
    assert np.mean(n_boxes) == pytest.approx(30, rel=0.15)
    again, other = detections(law, 0, 1), detections(law, 0, 2)
    assert rows[3].boxes == again[3].boxes
    assert rows[3].boxes != other[3].boxes
    assert len(detections(law, 1, 0)) == 100


def test_drawn_objects_are_a_coco_file(tmp_path: Path) -> None:
    law = Law(UNIT + 5)
    count = write_annotations(law, tmp_path / "objects.json")
    coco = load_coco(tmp_path / "objects.json")
    assert len(coco.images) == UNIT + 5
    # a box that the frame cuts to nothing is no object
    assert count - sum(coco.problems.values()) <= len(coco.table.boxes_xywh) <= count
    assert set(coco.problems) <= {"no area"}
    assert count / len(coco.images) == pytest.approx(7.3, rel=0.15)
    seen = scenes(law, 0)
    assert (seen.boxes_xyxy[:, 2:] <= seen.sizes[seen.owners]).all()


def test_peak_memory_is_that_of_the_work_since() -> None:
    before = resident_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    forget_peak()
    # pages that go back to the system at once, whatever the allocator does
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(bytes(64 << 20))
    peak = peak_bytes()
    assert peak is not None
    assert peak - before > 50_000_000
    forget_peak()
    assert (peak_bytes() or 0) < peak


def test_a_process_knows_whom_it_started() -> None:
    import os
    import subprocess
    import sys

    sleeper = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", sleeper]) as child:
        assert child.pid in descendants(os.getpid())
        child.kill()
    assert child.pid not in descendants(os.getpid())
